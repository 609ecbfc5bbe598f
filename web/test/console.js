// Commands and what they write. It is a guest's output, and hostile: it becomes text and nothing else, and no more of it is kept than a person reads.
import { lines, bytes, APIError } from '/assets/shared/api.js';
import { h, find } from '/assets/shared/dom.js';
import { duration } from './activity.js';

const KEPT = 256 * 1024; // characters
const BLOCK = 8 * 1024; // characters
const AT_ONCE = 64 * 1024; // characters that wait to be shown; who writes more waits
const OFTEN = 30; // milliseconds between two looks of what is new

const output = find('output');
let length = 0, waiting = [], waits = 0, next = null, atLine = true;

/** write has a text shown soon. While a command floods, its reader waits for what is returned: the page stays quick, and the command waits. */
function write(kind, text) {
  if (!text) return null;
  if (waiting.at(-1)?.kind === kind) waiting.at(-1).text += text;
  else waiting.push({ kind, text });
  waits += text.length;
  atLine = text.endsWith('\n');
  next ??= new Promise((resolve) => {
    setTimeout(() => {
      next = null;
      show();
      resolve();
    }, OFTEN);
  });
  return waits > AT_ONCE ? next : null;
}

/**
 * block is where a text goes that is added: a piece of the output that is laid out by itself, so that what is there already costs nothing. It begins
 * with a line, unless a line is very long.
 */
function block() {
  const last = output.lastElementChild, size = last ? Number(last.dataset.length) : 0;
  if (last && (size < BLOCK || (size < KEPT / 4 && !last.textContent.endsWith('\n')))) return last;
  return output.appendChild(h('div', { 'data-length': 0 }));
}

/** show adds to the output what waits, drops what is too much from its beginning, and stays at its end for who is there. */
function show() {
  const atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
  for (const { kind, text } of waiting) {
    for (let at = Math.max(0, text.length - KEPT); at < text.length; ) {
      const line = text.indexOf('\n', at + BLOCK), part = text.slice(at, Math.min(line < 0 ? text.length : line + 1, at + KEPT / 4)), to = block();
      to.append(h('span', { class: kind }, part));
      to.dataset.length = Number(to.dataset.length) + part.length;
      length += part.length;
      at += part.length;
    }
  }
  waiting = [];
  waits = 0;
  while (length > KEPT) {
    length -= Number(output.firstElementChild.dataset.length);
    output.firstElementChild.remove();
  }
  if (atEnd) output.scrollTop = output.scrollHeight;
}

export function clear() {
  output.replaceChildren();
  waiting = [];
  length = waits = 0;
  atLine = true;
}

/** line writes a line of the page's own, which begins where a line does. */
const line = (kind, text) => write(kind, `${atLine ? '' : '\n'}${text}\n`);

/** run runs a command in a sandbox and returns how it ended. */
export async function run(client, id, command, signal) {
  line('ran', `$ ${command}`);
  const began = performance.now();
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() }; // a character may come in two parts
  try {
    const response = await client.open('POST', `/v1/sandboxes/${id}/exec/stream`, { body: { cmd: 'sh', args: ['-c', command] }, signal });
    for await (const told of lines(response)) {
      const event = JSON.parse(told);
      if (event.type === 'stdout' || event.type === 'stderr') await write(event.type, decoders[event.type].decode(bytes(event), { stream: true }));
      if (event.type === 'error') throw new APIError(response.status, event.error);
      if (event.type === 'ended') {
        line('end', `${event.status} · ${duration(performance.now() - began)}`);
        return event.status;
      }
    }
    throw new APIError(0, { message: 'the connection broke before the command ended', fix: 'run it again, if it may run twice' });
  } catch (error) {
    line('end', `${error.name === 'AbortError' ? 'stopped' : error.message} · ${duration(performance.now() - began)}`);
    if (error.name === 'AbortError') return 'stopped';
    throw error;
  }
}
