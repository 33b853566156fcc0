// A live stream: sound to WS /stream, events from it, and why it ended. docs/streaming.md describes the messages.
import { ApiError, authHeaders, openSocket } from "./api.js";

const LAST_WORDS_S = 15; // how long a finished stream may take for its last finals
// A network that has died tells nobody; it shows in what is not taken any more. Generous, since the sound of the time in
// which the visitor looked for the API key is sent at once.
const MAX_BEHIND_BYTES = 8_000_000;
const BUSY = 1013; // close codes as in docs/streaming.md
const UNAUTHORIZED = 401; // of HTTP

/** One stream. It connects at once; what is sent before the connection is open waits. */
export class Stream {
  #config;
  #onEvent;
  #askForKey;
  #socket = null;
  #waiting = []; // null once the connection is open
  #over = false;
  #end;
  #timer;

  /**
   * @param config the first message: {format, rate, model, hotwords, written}
   * @param onEvent called with each event of the service
   * @param askForKey asks the visitor for the API key, where the service wants one
   */
  constructor(config, onEvent, askForKey) {
    this.#config = config;
    this.#onEvent = onEvent;
    this.#askForKey = askForKey;
    /** Resolves with null after `done`, else with the ApiError that ended the stream. */
    this.ended = new Promise((resolve) => {
      this.#end = (error) => {
        clearTimeout(this.#timer);
        resolve(error);
        this.close();
      };
    });
    this.#connect();
  }

  /** Send sound: an Int16Array. */
  send(samples) {
    this.#say(samples);
    if (this.#socket?.bufferedAmount > MAX_BEHIND_BYTES) this.#end(new ApiError("stream_lost"));
  }

  /** No more sound comes: `ended` resolves after the last finals, or when they take too long. */
  finish() {
    this.#say(JSON.stringify({ type: "stop" }));
    this.#timer = setTimeout(() => this.#end(new ApiError("stream_late")), LAST_WORDS_S * 1000);
  }

  /** End at once. */
  close() {
    this.#over = true;
    this.#socket?.close();
  }

  #say(message) {
    if (this.#over) return;
    if (this.#waiting) this.#waiting.push(message);
    else if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(message);
  }

  #connect() {
    let socket;
    try {
      socket = openSocket("stream");
    } catch {
      this.#askAgain(); // the key has letters that no subprotocol can carry
      return;
    }
    this.#socket = socket;
    let failure = null;
    socket.addEventListener("open", () => {
      for (const message of [JSON.stringify(this.#config), ...this.#waiting]) socket.send(message);
      this.#waiting = null;
    });
    socket.addEventListener("message", ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "error") failure = new ApiError(event.code, event.message);
      else if (event.type === "done") this.#end(null);
      else this.#onEvent(event);
    });
    socket.addEventListener("close", ({ code }) => {
      if (this.#waiting) this.#findRefusal();
      else this.#end(failure ?? new ApiError(code === BUSY ? "streams_busy" : "stream_lost"));
    });
  }

  /** A browser does not tell why a handshake failed; an ordinary request does. With a key the stream is tried again. */
  async #findRefusal() {
    if (this.#over) return;
    const status = await askStatus("v1/models");
    if (status === null) this.#end(new ApiError("unreachable"));
    else if (status !== UNAUTHORIZED) this.#end(new ApiError("stream_refused"));
    else this.#askAgain();
  }

  async #askAgain() {
    if (!(await this.#askForKey())) this.#end(new ApiError("unauthorized"));
    else if (!this.#over) this.#connect();
  }
}

/** The HTTP status of a GET, null where no server answers. */
async function askStatus(path) {
  try {
    return (await fetch(path, { headers: authHeaders() })).status;
  } catch {
    return null;
  }
}
