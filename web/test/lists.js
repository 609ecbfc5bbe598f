// The lists of sandboxes and snapshots, and what a sandbox can be started from.
import { h, find } from '/assets/shared/dom.js';

const badge = (state) => h('span', { class: 'state', 'data-state': state }, state);

/** armed makes a button ask once more before it does what can't be undone. */
export function armed(button, label, question, act) {
  let timer = 0;
  const disarm = () => {
    clearTimeout(timer);
    timer = 0;
    button.textContent = label;
    button.classList.remove('armed');
  };
  button.textContent = label;
  button.addEventListener('click', () => {
    if (timer) {
      disarm();
      act();
      return;
    }
    button.textContent = question;
    button.classList.add('armed');
    timer = setTimeout(disarm, 4000);
  });
  button.addEventListener('blur', disarm);
  return button;
}

/** keyed fills a list with an element for each item, and leaves alone those that are as they were: the focus stays where it is. */
function keyed(list, items, key, make) {
  const have = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const want = items.map((item) => {
    const version = JSON.stringify(item);
    const old = have.get(key(item));
    if (old?.dataset.version === version) return old;
    const made = make(item);
    made.dataset.key = key(item);
    made.dataset.version = version;
    if (old?.contains(document.activeElement)) queueMicrotask(() => made.querySelector('button')?.focus());
    return made;
  });
  if (want.length !== list.children.length || want.some((child, i) => list.children[i] !== child)) list.replaceChildren(...want);
}

export function showSandboxes(state, choose) {
  const newest = [...state.sandboxes.values()].sort((a, b) => b.created_at.localeCompare(a.created_at));
  keyed(find('sandboxes'), newest.map((s) => ({ id: s.id, state: s.state, source: s.template, chosen: s.id === state.chosen })), (s) => s.id,
    (s) => h('li', {}, h('button', { type: 'button', class: 'pick', 'aria-pressed': String(s.chosen), click: () => choose(s.id) },
      h('span', { class: 'mono' }, s.id), badge(s.state), h('small', {}, s.source))));
  find('no-sandboxes').hidden = newest.length > 0;
}

export function showSnapshots(state, { start, remove }) {
  keyed(find('snapshots'), state.snapshots, (s) => s.name, (s) => h('li', {},
    h('span', { class: 'what' }, h('span', { class: 'mono' }, s.name), ' ',
      h('small', {}, `of ${s.sandbox_id}, ${new Date(s.created_at).toLocaleString()}`)),
    h('button', { type: 'button', click: () => start(s.name) }, 'Start one'),
    armed(h('button', { type: 'button' }), 'Delete', 'Delete it?', () => remove(s.name))));
  find('no-snapshots').hidden = state.snapshots.length > 0;
}

/**
 * changed says whether an element shows something else than this; then it is to be filled anew. What is open, chosen or marked in it stays till then.
 */
function changed(element, what) {
  const version = JSON.stringify(what);
  if (element.dataset.version === version) return false;
  element.dataset.version = version;
  return true;
}

/** showSources fills the choice of what to start from. Its values are "template NAME" and "snapshot NAME". */
export function showSources(state) {
  const select = find('source'), chosen = select.value;
  if (!changed(select, [state.templates, state.snapshots])) return;
  const group = (kind, label, items) => items.length > 0 &&
    h('optgroup', { label }, items.map(({ name }) => h('option', { value: `${kind} ${name}` }, name)));
  select.replaceChildren(...[group('template', 'Templates', state.templates), group('snapshot', 'Snapshots', state.snapshots)].filter(Boolean));
  if ([...select.options].some((o) => o.value === chosen)) select.value = chosen;
}

const bytes = (n) => (n < 2 ** 30 ? `${Math.ceil(n / 2 ** 20)} MiB` : `${(n / 2 ** 30).toFixed(1)} GiB`);

const FACTS = [
  ['state', (s) => [badge(s.state), s.reason ? ` ${s.reason}` : '']],
  ['template', (s) => s.template],
  ['size', (s) => `${s.vcpus} vCPU, ${s.memory_mib} MiB memory, ${bytes(s.disk_bytes)} disk`],
  ['internet', (s) => (s.internet ? 'yes' : 'no')],
  ['idle at most', (s) => s.ttl_seconds > 0 && `${s.ttl_seconds} s, then ${s.on_expiry}`],
  ['metadata', (s) => Object.entries(s.metadata).map(([k, v]) => `${k}=${v}`).join(', ')],
  ['created', (s) => new Date(s.created_at).toLocaleString()],
];

export function showDetail(sandbox) {
  find('detail-none').hidden = sandbox !== null;
  find('detail-body').hidden = sandbox === null;
  find('detail-title').textContent = sandbox?.id ?? 'No sandbox is chosen';
  find('detail-title').classList.toggle('mono', sandbox !== null);
  if (!sandbox || !changed(find('facts'), sandbox)) return;
  find('facts').replaceChildren(...FACTS.flatMap(([name, of]) => {
    const value = of(sandbox);
    return value ? [h('dt', {}, name), h('dd', {}, value)] : [];
  }));
}
