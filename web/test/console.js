// Commands and what they write, for each sandbox. It is a guest's output, and hostile: it becomes text and nothing else, and no more of it is kept
// than a person reads.
import { lines, bytes, APIError } from '/assets/shared/api.js';
import { h } from '/assets/shared/dom.js';
import { duration } from './activity.js';

const KEPT = 256 * 1024; // characters
const BLOCK = 8 * 1024; // characters
const AT_ONCE = 64 * 1024; // characters that wait to be shown; who writes more waits
const OFTEN = 30; // milliseconds between two looks of what is new

export class Console {
  output = h('pre', { id: 'output', tabindex: 0, role: 'log', 'aria-label': 'What commands wrote' });
  #length = 0;
  #waiting = [];
  #waits = 0;
  #next = null;
  #atLine = true;
  #running = null;

  get running() {
    return this.#running !== null;
  }

  stop() {
    this.#running?.abort();
  }

  /** #write has a text shown soon. While a command floods, its reader waits for what is returned: the page stays quick, and the command waits. */
  #write(kind, text) {
    if (!text) return null;
    if (this.#waiting.at(-1)?.kind === kind) this.#waiting.at(-1).text += text;
    else this.#waiting.push({ kind, text });
    this.#waits += text.length;
    this.#atLine = text.endsWith('\n');
    this.#next ??= new Promise((resolve) => {
      setTimeout(() => {
        this.#next = null;
        this.#show();
        resolve();
      }, OFTEN);
    });
    return this.#waits > AT_ONCE ? this.#next : null;
  }

  /** #line writes a line of the page's own, which begins where a line does. */
  #line(kind, text) {
    return this.#write(kind, `${this.#atLine ? '' : '\n'}${text}\n`);
  }

  /**
   * #block is where a text goes that is added: a piece of the output that is laid out by itself, so that what is there already costs nothing. It
   * begins with a line, unless a line is very long.
   */
  #block() {
    const last = this.output.lastElementChild, size = last ? Number(last.dataset.length) : 0;
    if (last && (size < BLOCK || (size < KEPT / 4 && !last.textContent.endsWith('\n')))) return last;
    return this.output.appendChild(h('div', { 'data-length': 0 }));
  }

  /** #show adds to the output what waits, drops what is too much from its beginning, and stays at its end for who is there. */
  #show() {
    const { output } = this, atEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    for (const { kind, text } of this.#waiting) {
      for (let at = Math.max(0, text.length - KEPT); at < text.length; ) {
        const line = text.indexOf('\n', at + BLOCK), end = line < 0 ? text.length : line + 1;
        const part = text.slice(at, Math.min(end, at + KEPT / 4)), to = this.#block();
        to.append(h('span', { class: kind }, part));
        to.dataset.length = Number(to.dataset.length) + part.length;
        this.#length += part.length;
        at += part.length;
      }
    }
    this.#waiting = [];
    this.#waits = 0;
    while (this.#length > KEPT) {
      this.#length -= Number(output.firstElementChild.dataset.length);
      output.firstElementChild.remove();
    }
    if (atEnd) output.scrollTop = output.scrollHeight;
  }

  /** run runs a command in the sandbox and returns how it ended. One at a time. */
  async run(client, id, command) {
    const began = performance.now(), took = () => duration(performance.now() - began);
    const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() }; // a character may come in two parts
    this.#running = new AbortController();
    this.#line('ran', `$ ${command}`);
    try {
      const { signal } = this.#running, body = { cmd: 'sh', args: ['-c', command] };
      const response = await client.open('POST', `/v1/sandboxes/${id}/exec/stream`, { body, signal });
      for await (const line of lines(response)) {
        const event = JSON.parse(line);
        const decoder = decoders[event.type];
        if (decoder) await this.#write(event.type, decoder.decode(bytes(event), { stream: true }));
        if (event.type === 'error') throw new APIError(response.status, event.error);
        if (event.type === 'ended') {
          this.#line('end', `${event.status} · ${took()}`);
          return;
        }
      }
      throw new APIError(0, { message: 'the connection broke before the command ended', fix: 'run it again, if it may run twice' });
    } catch (error) {
      this.#line('end', `${error.name === 'AbortError' ? 'stopped' : error.message} · ${took()}`);
      if (error.name !== 'AbortError') throw error;
    } finally {
      this.#running = null;
    }
  }
}
