// Calls of the REST API, and how its streams are read. The key goes into one header and nowhere else.

/** APIError is an answer that is no success, or none at all (status 0). */
export class APIError extends Error {
  constructor(status, body) {
    super(body.message || `the server answered ${status}`);
    this.status = status;
    this.code = body.code ?? '';
    this.field = body.field ?? '';
    this.fix = body.fix ?? '';
    this.requestID = body.request_id ?? '';
  }
}

export class Client {
  #key;

  constructor(key) {
    this.#key = key;
  }

  /** open sends a request and returns the answer when it has begun. */
  async open(method, path, { body, signal, headers } = {}) {
    const request = { method, signal, headers: { ...headers, Authorization: `Bearer ${this.#key}` }, cache: 'no-store', redirect: 'error' };
    if (body !== undefined) {
      request.headers['Content-Type'] = 'application/json';
      request.body = JSON.stringify(body);
    }
    let response;
    try {
      response = await fetch(path, request);
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new APIError(0, { message: 'the server does not answer', fix: 'look whether it runs and can be reached' });
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw new APIError(response.status, problem);
  }

  /** call sends a request and returns what the answer says; undefined where it says nothing. */
  async call(method, path, options) {
    const response = await this.open(method, path, options);
    return response.status === 204 ? undefined : response.json();
  }
}

/** lines are a stream's lines, as they come. */
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const parts = (rest + value).split('\n');
      rest = parts.pop();
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    await reader.cancel().catch(() => {}); // it may have ended
  }
}

/**
 * events are server-sent events: {id, type, data}, with empty data for those that only tell the place. EventSource, which browsers have for them, can
 * send no key but in the URL.
 */
export async function* events(response) {
  let id = '', type = '', data = [];
  for await (const line of lines(response)) {
    if (line === '') {
      yield { id, type, data: data.join('\n') };
      type = '';
      data = [];
      continue;
    }
    const colon = line.indexOf(':');
    const [field, value] = colon < 0 ? [line, ''] : [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
    if (field === 'id') id = value;
    else if (field === 'event') type = value;
    else if (field === 'data') data.push(value);
  }
}

/** bytes are what a Text of the API says. */
export function bytes({ encoding, data }) {
  return encoding === 'base64' ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : new TextEncoder().encode(data);
}
