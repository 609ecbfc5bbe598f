// What the page knows: the sandboxes and snapshots of the key's team, and which sandbox is chosen.

/** order is a time of the API's in a form whose texts are in the times' order: fractions of a second have as many digits as they need. */
const order = (time) => {
  const [whole, fraction = ''] = time.replace('Z', '').split('.');
  return `${whole}.${fraction.padEnd(9, '0')}`;
};

const ENDED = ['stopped', 'failed', 'lost'];
export const ended = (sandbox) => ENDED.includes(sandbox.state);

export class State extends EventTarget {
  sandboxes = new Map();
  snapshots = [];
  templates = [];
  chosen = null; // a sandbox's id; it may have ended
  #last = null; // the chosen one, when it is in no list any more

  #changed() {
    this.dispatchEvent(new Event('change'));
  }

  get selected() {
    return this.sandboxes.get(this.chosen) ?? (this.#last?.id === this.chosen ? this.#last : null);
  }

  /** put takes a sandbox as the server told it, unless something newer is known. */
  put(sandbox) {
    const known = this.sandboxes.get(sandbox.id) ?? (this.#last?.id === sandbox.id ? this.#last : undefined);
    if (known && (ended(known) || order(known.changed_at) > order(sandbox.changed_at))) return;
    if (ended(sandbox)) this.sandboxes.delete(sandbox.id);
    else this.sandboxes.set(sandbox.id, sandbox);
    if (sandbox.id === this.chosen) this.#last = sandbox;
    this.#changed();
  }

  /** event takes a change of state. It says whether the sandbox is known: of another one only the server can tell the rest. */
  event({ sandbox_id: id, state, reason, at }) {
    const known = this.sandboxes.get(id);
    if (known) this.put({ ...known, state, reason, changed_at: at });
    return known !== undefined;
  }

  /** load takes the whole list. */
  load(sandboxes) {
    for (const id of [...this.sandboxes.keys()]) if (!sandboxes.some((s) => s.id === id)) this.sandboxes.delete(id);
    for (const sandbox of sandboxes) this.put(sandbox);
    this.#changed();
  }

  choose(id) {
    this.#last = this.sandboxes.get(id) ?? null;
    this.chosen = id;
    this.#changed();
  }

  setSources({ templates = this.templates, snapshots = this.snapshots }) {
    Object.assign(this, { templates, snapshots });
    this.#changed();
  }
}
