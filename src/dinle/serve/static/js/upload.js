// One recording to the server, and its words back while they are found.
import { ApiError, authHeaders, readError } from "./api.js";

const DATA = "data: ";

/**
 * What is told while a recording is on its way:
 * onUpload(share of the bytes, 0 to 1), onWaiting() once all are there, onHeard(seconds that are done, new words).
 * @typedef {{onUpload: function(number): void, onWaiting: function(): void, onHeard: function(number, object[]): void}} Watcher
 */

/**
 * Send a recording; the promise gives the answer's text, inference_time and details.
 * It fails with an ApiError (refused; "unreachable"; "interrupted" where the connection broke after it had begun),
 * or with the signal's reason once that is aborted.
 * @param {Blob} file
 * @param {{name: string, model: string, options: {hotwords: string[], written: boolean}, signal: AbortSignal,
 *   watcher: Watcher}} how model "" is the server's default
 */
export function sendRecording(file, { name, model, options, signal, watcher }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest(); // fetch tells nothing of an upload's progress
    const stream = { begun: false, read: 0, done: null };
    const follow = () => {
      try {
        readNew(request, stream, watcher);
      } catch (error) {
        reject(error);
        request.abort();
      }
    };
    request.upload.addEventListener("progress", (event) => {
      stream.begun = true;
      if (event.lengthComputable) watcher.onUpload(event.loaded / event.total);
    });
    request.upload.addEventListener("load", watcher.onWaiting);
    request.addEventListener("progress", follow);
    request.addEventListener("load", () => {
      follow();
      if (stream.done) resolve(stream.done);
      else reject(nameEnd(request));
    });
    request.addEventListener("error", () => reject(new ApiError(stream.begun ? "interrupted" : "unreachable")));
    signal.addEventListener("abort", () => {
      reject(signal.reason);
      request.abort();
    });
    request.open("POST", makeAddress(model, options.written));
    for (const [header, value] of Object.entries(authHeaders())) request.setRequestHeader(header, value);
    const form = new FormData();
    // Not in the address: names may be many, and addresses are written down on the way.
    if (options.hotwords.length) form.append("hotwords", options.hotwords.join(","));
    form.append("file", file, name);
    request.send(form);
  });
}

function makeAddress(model, written) {
  const query = new URLSearchParams({ stream: "true", details: "true" });
  if (model) query.set("model", model);
  if (written) query.set("written", "true");
  return `transcribe?${query}`;
}

/** Why an answer that is complete brought no transcript. */
function nameEnd(request) {
  if (request.status >= 200 && request.status < 300) return new ApiError("interrupted");
  return readError(request.responseText, request.status, request.getResponseHeader("Retry-After"));
}

/** Take the events that came since the last look; an error event is thrown. */
function readNew(request, stream, watcher) {
  if (request.status !== 200) return; // a refusal is read as a whole at its end
  const { events, end } = parseEvents(request.responseText, stream.read);
  stream.read = end;
  for (const event of events) {
    if (event.type === "started") watcher.onHeard(0, []);
    else if (event.type === "words") watcher.onHeard(event.heard, event.words);
    else if (event.type === "done") stream.done = event;
    else if (event.type === "error") throw new ApiError(event.code, event.detail);
  }
}

/**
 * The complete server-sent events of a text from a place on, and where the next one begins.
 * Comments and fields other than data are passed over; what is not JSON is thrown as an ApiError.
 */
export function parseEvents(text, from = 0) {
  const events = [];
  let end = from;
  for (let stop = text.indexOf("\n\n", end); stop >= 0; stop = text.indexOf("\n\n", end)) {
    const data = text.slice(end, stop).split("\n").filter((line) => line.startsWith(DATA));
    if (data.length) events.push(parseData(data.map((line) => line.slice(DATA.length)).join("\n")));
    end = stop + 2;
  }
  return { events, end };
}

function parseData(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ApiError("other", `not JSON: ${data.slice(0, 80)}`);
  }
}
