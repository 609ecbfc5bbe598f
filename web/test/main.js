// The test page: forms and buttons, and the operations behind them.
import { APIError, Client } from '/assets/shared/api.js';
import { find, errorBox } from '/assets/shared/dom.js';
import { note, timed } from './activity.js';
import { Console } from './console.js';
import { armed, showDetail, showSandboxes, showSnapshots, showSources } from './lists.js';
import { follow } from './live.js';
import { State, ended } from './state.js';

const KEY = 'wrenn-key'; // in sessionStorage
const MOST = 1000; // that are listed of each kind

const MOST_COMMANDS = 4; // at a time: browsers have six connections to a server, and the events have one of them

let client = null, state = new State();
const busy = new Set(); // sandboxes that an operation of this page is about
const consoles = new Map(); // by sandbox

/** consoleOf is a sandbox's, also one that has ended. */
function consoleOf(id) {
  if (!consoles.has(id)) consoles.set(id, new Console());
  return consoles.get(id);
}

const seconds = (text) => (text === '' ? undefined : Number(text));

/** problem shows an error beside what it is about, and marks the field that it names. */
function problem(box, error, form) {
  box.replaceChildren(...(error ? [errorBox(error)] : []));
  for (const input of form?.querySelectorAll('[data-field]') ?? []) {
    const wrong = error?.field && input.dataset.field.split(' ').includes(error.field.split('.')[0]);
    if (wrong) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  }
}

/** act does an operation about the chosen sandbox. Its error is in the log and beside the buttons. */
async function act(operation, work, form) {
  const id = state.chosen;
  busy.add(id);
  show();
  problem(find('detail-problem'), null, form);
  try {
    await timed(operation, id, () => work(id));
  } catch (error) {
    if (state.chosen === id) problem(find('detail-problem'), error, form);
  } finally {
    busy.delete(id);
    show();
  }
}

async function create(ask, form) {
  const box = find('create').querySelector('.problem');
  problem(box, null, find('create'));
  try {
    const body = ask();
    const sandbox = await timed('create', body.template ?? body.snapshot, () => client.call('POST', '/v1/sandboxes', { body }));
    state.put(sandbox);
    choose(sandbox.id);
  } catch (error) {
    problem(box, error, form);
  }
}

function choose(id) {
  if (id === state.chosen) return;
  problem(find('detail-problem'), null, find('detail'));
  state.choose(id);
}

/** asked is what the form for a new sandbox says. Each field that is empty is left out. */
function asked() {
  const [kind, name] = find('source').value.split(/ (.*)/);
  const metadata = Object.fromEntries(find('metadata').value.split('\n').filter((line) => line.trim()).map((line) => {
    const [key, value] = line.split(/=(.*)/s);
    if (value === undefined) throw new APIError(0, { message: `“${line}” is no entry`, field: 'metadata', fix: 'give name=value' });
    return [key, value];
  }));
  const ttl = seconds(find('ttl').value);
  return {
    [kind]: name, vcpus: seconds(find('vcpus').value), memory_mib: seconds(find('memory').value),
    internet: find('internet').checked ? undefined : false, metadata: Object.keys(metadata).length > 0 ? metadata : undefined,
    ttl_seconds: ttl, on_expiry: ttl > 0 ? find('expiry').value : undefined,
  };
}

/** all reads a list, page after page. */
async function all(path, name) {
  const list = [];
  for (let cursor = ''; list.length < MOST; ) {
    const page = await client.call('GET', `${path}?limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    list.push(...page[name]);
    if (!(cursor = page.next_cursor)) return list;
  }
  note(`there are more ${name} than the ${list.length} that are shown`);
  return list;
}

/** loadSandboxes reads those that have not ended, and of the chosen one also how it has. */
async function loadSandboxes() {
  state.load(await all('/v1/sandboxes', 'sandboxes'));
  const { selected } = state;
  if (selected && !ended(selected) && !state.sandboxes.has(selected.id)) state.put(await client.call('GET', `/v1/sandboxes/${selected.id}`));
}

const loadSnapshots = async () => state.setSources({ snapshots: await all('/v1/snapshots', 'snapshots') });

async function onEvent(event) {
  note(`${event.sandbox_id} is ${event.state}${event.reason ? `: ${event.reason}` : ''}`);
  if (state.event(event) || ['stopped', 'failed', 'lost'].includes(event.state)) return;
  try {
    state.put(await client.call('GET', `/v1/sandboxes/${event.sandbox_id}`));
  } catch {
    // It has gone meanwhile, and an event says so; or the connection has, and the list is read again when it is back.
  }
}

async function onLive(on, error) {
  const live = find('live');
  live.toggleAttribute('data-on', on);
  live.textContent = on ? 'live' : error ? error.message : 'connecting again…';
  if (on) await Promise.all([loadSandboxes(), loadSnapshots()]).catch((problem) => note(`the lists could not be read: ${problem.message}`));
}

function show() {
  showSandboxes(state, choose);
  showSources(state);
  showSnapshots(state, {
    start: (snapshot) => create(() => ({ snapshot })),
    remove: (name) => timed('delete snapshot', name, () => client.call('DELETE', `/v1/snapshots/${name}`)).then(loadSnapshots).catch(() => {}),
  });
  const sandbox = state.selected;
  showDetail(sandbox);
  const free = sandbox && !busy.has(sandbox.id), runs = free && sandbox.state === 'running';
  find('pause').disabled = find('fork').querySelector('button').disabled = find('freeze').querySelector('button').disabled = !runs;
  find('resume').disabled = !(free && sandbox.state === 'paused');
  find('destroy').disabled = !sandbox || ended(sandbox) || busy.has(sandbox.id);
  const own = sandbox && consoleOf(sandbox.id), commands = [...consoles.values()].filter((c) => c.running).length;
  find('exec').querySelector('[type=submit]').disabled = !(sandbox?.state === 'running') || own.running || commands >= MOST_COMMANDS;
  find('stop').hidden = !own?.running;
  if (own && find('output') !== own.output) find('output').replaceWith(own.output);
}

const post = (id, what, body) => client.call('POST', `/v1/sandboxes/${id}/${what}`, { body });

/** onSubmit has a form do something here, and never send itself: then what is in it would be in the URL. */
const onSubmit = (id, act) => find(id).addEventListener('submit', (event) => {
  event.preventDefault();
  act(event.target);
});

onSubmit('create', (form) => create(asked, form));
onSubmit('fork', (form) => act('fork', async (id) => {
  for (const clone of (await post(id, 'fork', { count: Number(find('clones').value) })).clones) {
    if (clone.sandbox) state.put(clone.sandbox);
    else note(`a clone of ${id} was not started: ${clone.error}`);
  }
}, form));
onSubmit('freeze', (form) => act('snapshot', async (id) => {
  await post(id, 'snapshots', { name: find('name').value });
  find('name').value = '';
  await loadSnapshots();
}, form));
find('pause').addEventListener('click', () => act('pause', async (id) => state.put(await post(id, 'pause'))));
find('resume').addEventListener('click', () => act('resume', async (id) => state.put(await post(id, 'resume'))));
armed(find('destroy'), 'Destroy', 'Destroy it?', () => act('destroy', (id) => client.call('DELETE', `/v1/sandboxes/${id}`)));

onSubmit('exec', async (form) => {
  const id = state.chosen, command = find('command').value;
  problem(find('detail-problem'), null, form);
  try {
    const done = timed('exec', command, () => consoleOf(id).run(client, id, command));
    show();
    await done;
  } catch (error) {
    if (state.chosen === id) problem(find('detail-problem'), error, form);
  } finally {
    show();
  }
});
find('stop').addEventListener('click', () => consoleOf(state.chosen).stop());

/** begin works with a key, once the server has taken it. */
async function begin(key) {
  client = new Client(key);
  const { templates } = await timed('sign in', '', () => client.call('GET', '/v1/templates'));
  sessionStorage.setItem(KEY, key);
  state = new State();
  state.addEventListener('change', show);
  state.setSources({ templates });
  find('sign-in').hidden = true;
  find('work').hidden = find('sign-out').hidden = false;
  find('key').value = '';
  find('source').focus();
  follow(client, { onEvent, onLive }); // as long as the page is there
}

onSubmit('sign-in', async () => {
  const box = find('sign-in-problem');
  try {
    box.replaceChildren();
    await begin(find('key').value.trim());
  } catch (error) {
    box.replaceChildren(errorBox(error));
    find('key').focus();
  }
});

find('sign-out').addEventListener('click', () => {
  sessionStorage.removeItem(KEY);
  location.reload(); // with it goes all that was read
});

const kept = sessionStorage.getItem(KEY);
if (kept) begin(kept).catch((error) => { find('sign-in-problem').replaceChildren(errorBox(error)); });
else find('key').focus();
