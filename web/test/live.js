// The server's events: they keep the list right, also about what others do and what happens by itself.
import { events } from '/assets/shared/api.js';

const AGAIN = [0.5, 1, 2, 5, 10]; // seconds until the next try

const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });

/**
 * follow calls onEvent for each change of state, through breaks of the connection: the server goes on after the last event that was read. onLive
 * hears whether it is connected; it is awaited, so that what it loads is older than the events that come after. It ends when the key is no good any more.
 */
export async function follow(client, { onEvent, onLive }) {
  let last = '';
  for (let failures = 0; ; ) {
    try {
      const response = await client.open('GET', '/v1/events', { headers: last ? { 'Last-Event-ID': last } : {} });
      let first = true;
      for await (const event of events(response)) {
        failures = 0;
        last = event.id;
        if (first) await onLive(true);
        first = false;
        if (event.type === 'state' && event.data) onEvent(JSON.parse(event.data));
      }
    } catch (error) {
      if (error.status === 401 || error.status === 403) {
        onLive(false, error);
        return;
      }
      if (error.status === 400) last = ''; // the place is not there any more: from now on, then
    }
    onLive(false);
    await pause(AGAIN[Math.min(failures++, AGAIN.length - 1)]);
  }
}
