// A live feed: server-sent events that resume where they stopped, and polling while there are none.

import { EVENTS } from './events.js';
import { setText } from './lib.js';

const POLL = 500;
const HIDDEN = 10_000; // A browser has six connections for a site: a page that nobody sees gives its own back.

export class Feed {
  /**
   * @param {string} path of the feed
   * @param {object} to onEvent(entry): one event. onGap(): load the data anew, events may be missing;
   *   called when a feed begins, after a reset, and as polling. onLink(state): 'live' or 'lost'.
   */
  constructor(path, to) {
    Object.assign(this, { path, to, last: '', wait: 1000, source: null, poll: 0, again: 0 });
    document.addEventListener('visibilitychange', () => this.#seen(!document.hidden));
    this.#open();
  }

  /** Ends the feed: nothing more will happen. */
  close() {
    this.closed = true;
    this.#drop();
  }

  #open() {
    clearTimeout(this.again);
    const from = this.last ? `?lastEventId=${encodeURIComponent(this.last)}` : '';
    const source = new EventSource(this.path + from);
    this.source = source;
    source.onopen = () => this.#opened();
    source.onerror = () => this.#failed();
    for (const type of Object.keys(EVENTS)) {
      source.addEventListener(type, (m) => {
        this.last = m.lastEventId;
        this.to.onEvent(JSON.parse(m.data));
      });
    }
    source.addEventListener('reset', (m) => {
      this.last = m.lastEventId;
      this.to.onGap();
    });
  }

  #opened() {
    this.wait = 1000;
    clearInterval(this.poll);
    this.poll = 0;
    this.to.onLink('live');
    // The feed begins now, or where it stopped; what came before it began has to be loaded once.
    if (!this.last) this.to.onGap();
  }

  #failed() {
    this.to.onLink('lost');
    this.poll ||= setInterval(() => this.to.onGap(), POLL);
    if (this.source.readyState !== EventSource.CLOSED) return; // The browser retries by itself.
    clearTimeout(this.again);
    this.again = setTimeout(() => this.#open(), this.wait * (0.5 + Math.random()));
    this.wait = Math.min(this.wait * 2, 30_000);
  }

  #drop() {
    clearTimeout(this.again);
    clearInterval(this.poll);
    this.poll = 0;
    this.source?.close();
    this.source = null;
  }

  #seen(visible) {
    if (this.closed) return;
    clearTimeout(this.hiding);
    if (!visible) this.hiding = setTimeout(() => this.#drop(), HIDDEN);
    else if (!this.source) this.#open();
  }
}

const LINK = { live: 'Live', lost: 'Connection lost, retrying', idle: 'Connecting' };

/** Shows the state of the connection in an element with role=status. */
export function showLink(e, state, words = LINK[state]) {
  e.dataset.link = state;
  setText(e, words);
}
