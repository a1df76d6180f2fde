// A WebSocket that comes back: exponential back-off with full jitter.
'use strict';

const FIRST_DELAY = 500;
const LONGEST_DELAY = 30_000;
// A session that lasted this long was a good one: the next failure starts over with short delays.
const GOOD_AFTER = 10_000;
// Coming back with the same request would end the same way.
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010]);

/** What the gateway, or the browser, means by a close code that comes without a reason. */
function meaning(code) {
  return {
    1000: '(done)',
    1001: '(the gateway or the backend goes away)',
    1005: '(no code given)',
    1006: '(the connection was lost, or refused)',
    1011: '(the backend failed)',
    1012: '(the backend was lost: come back)',
    1013: '(try again later)',
  }[code] ?? '';
}

class ReconnectingClient {
  #url; #told; #socket = null; #timer = null; #failures = 0; #stopped = false;

  constructor(url, told) {
    this.#url = url;
    this.#told = told;
    this.#open();
  }

  /** Sends if a session is open, and says whether it did. */
  send(data) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(data);
    return true;
  }

  /** Closes for good. */
  stop() {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1000, 'done');
  }

  #open() {
    let opened = null;
    this.#socket = new WebSocket(this.#url);
    this.#socket.onopen = () => { opened = Date.now(); this.#told.onOpen(); };
    this.#socket.onmessage = ({ data }) => this.#told.onMessage(data);
    this.#socket.onclose = ({ code, reason }) => {
      if (opened !== null && Date.now() - opened > GOOD_AFTER) this.#failures = 0;
      const delay = this.#stopped || FINAL.has(code) ? null : this.#delay();
      if (delay !== null) this.#timer = setTimeout(() => this.#open(), delay);
      this.#told.onClose({ code, reason, delay });
    };
  }

  // Full jitter: when a backend restarts, its thousand clients spread over the whole span instead of returning together.
  #delay() {
    const span = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#failures);
    this.#failures += 1;
    return Math.random() * span;
  }
}
