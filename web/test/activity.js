// The activity log: each operation with when it began and what it took, and each change of state with when it came.
import { h, find, errorBox } from '/assets/shared/dom.js';

const KEPT = 300; // lines

const list = find('activity');
find('clear').addEventListener('click', () => list.replaceChildren());

const clock = () => new Date().toTimeString().slice(0, 8);

/** duration is a time in milliseconds, for a person. */
export const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);

function add(line) {
  list.prepend(line);
  while (list.childElementCount > KEPT) list.lastElementChild.remove();
}

/** note writes a line about what happened by itself. */
export function note(text) {
  add(h('li', { class: 'event' }, h('time', {}, clock()), h('span', { class: 'text' }, text)));
}

/** timed does an operation, with a line for it. An error is on that line, and thrown. */
export async function timed(operation, about, work) {
  const took = h('span', { class: 'took dim' }, '…');
  const line = h('li', { 'data-operation': operation, 'data-result': 'pending' },
    h('time', {}, clock()), h('span', { class: 'text' }, `${operation} `, h('span', { class: 'mono' }, about)), took);
  add(line);
  const began = performance.now();
  const ended = (result) => {
    took.textContent = duration(performance.now() - began);
    line.dataset.result = result;
  };
  try {
    const answer = await work();
    ended('done');
    return answer;
  } catch (error) {
    ended('failed');
    line.append(errorBox(error));
    throw error;
  }
}
