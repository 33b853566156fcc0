// Speaking into the microphone: from the click to the text, and what stays of it.
import { ApiError } from "./api.js";
import { formatClock, onLanguage, t } from "./i18n.js";
import { LevelMeter } from "./level.js";
import { LiveText } from "./live_text.js";
import { openMicrophone } from "./microphone.js";
import { chosenModel } from "./model_choice.js";
import { chosenOptions } from "./options.js";
import { Recording } from "./recording.js";
import { Stream } from "./stream.js";
import { clearProblem, showProblem, showResult } from "./transcribe.js";

const SILENT_S = 3; // so long even a quiet room is not silent to a microphone that works
const OFFERED_S = 1; // a failed recording that is shorter holds nothing worth saving
const OTHERS = ["record", "pick", "sample", "file", "model", "hotwords", "written"]; // what may not be used meanwhile

const byId = (id) => document.getElementById(id);
let meter;
let session = null;
let note = "live.asking";

/** Let the microphone button work. `askForKey` asks the visitor for the API key. */
export function startLive({ askForKey }) {
  meter = new LevelMeter(byId("live-level"));
  onLanguage(() => showNote(note));
  byId("record").addEventListener("click", () => listen(askForKey));
  byId("stop").addEventListener("click", () => session?.stop());
  document.addEventListener("keydown", (event) => {
    const elsewhere = byId("transcribe").hidden || document.querySelector("dialog[open]");
    if (event.key === "Escape" && !elsewhere) session?.stop();
  });
  // The page may be kept for the way back: then it must not go on listening.
  window.addEventListener("pagehide", () => session?.leave());
}

/** One session, from the click to its result or the reason why there is none. */
async function listen(askForKey) {
  if (session) return;
  const mine = new Session(askForKey);
  session = mine;
  showListening();
  let error = null;
  try {
    error = await mine.run();
  } catch (thrown) {
    error = thrown instanceof ApiError ? thrown : new ApiError("other", String(thrown));
    mine.leave();
  }
  session = null;
  hideListening();
  showEnd(mine, error, () => listen(askForKey));
}

/** A microphone, the stream that it is sent to, and what came of both. */
class Session {
  recording = null;
  model = "";
  text = new LiveText(byId("live-text"));
  #askForKey;
  #microphone = null;
  #stream = null;
  #loudest = 0;
  #stopped;
  #stop;

  constructor(askForKey) {
    this.#askForKey = askForKey;
    this.#stopped = new Promise((resolve) => (this.#stop = resolve));
  }

  /** The visitor has said all. */
  stop() {
    this.#stop();
  }

  /** The page is left: end at once. */
  leave() {
    this.#stop();
    this.#microphone?.close();
    this.#stream?.close();
  }

  /** Listen until the visitor stops or it cannot go on. Null, or the ApiError that ended it; throws where it never began. */
  async run() {
    if (!(await this.#open())) return null;
    const cause = await Promise.race([this.#stopped, this.#microphone.lost, this.#stream.ended]);
    showNote("live.finishing");
    byId("stop").disabled = true;
    await this.#microphone.stop();
    this.#stream.finish();
    return (await this.#stream.ended) ?? cause ?? null;
  }

  /** Whether there is a microphone: the visitor may stop before the browser gives it. */
  async #open() {
    const opening = openMicrophone((samples, peak) => this.#hear(samples, peak));
    const microphone = await Promise.race([opening, this.#stopped]);
    if (!microphone) {
      opening.then((late) => late.close()).catch(() => {}); // nobody waits for it any more
      return false;
    }
    this.#microphone = microphone;
    this.recording = new Recording(microphone.rateHz);
    const { hotwords, written } = chosenOptions();
    const config = { format: "pcm16", rate: microphone.rateHz, model: chosenModel() || undefined };
    if (hotwords.length) config.hotwords = hotwords;
    if (written) config.written = true;
    this.#stream = new Stream(config, (event) => this.#take(event), this.#askForKey);
    showNote("live.speak");
    return true;
  }

  #hear(samples, peak) {
    this.recording.add(samples);
    this.#stream.send(samples);
    this.#loudest = Math.max(this.#loudest, peak);
    meter.add(peak);
    const seconds = this.recording.durationS;
    byId("live-clock").textContent = formatClock(seconds);
    if (!byId("stop").disabled) showNote(this.#chooseNote(seconds));
  }

  #chooseNote(seconds) {
    if (this.recording.full) return "live.long";
    return seconds > SILENT_S && this.#loudest === 0 ? "live.silent" : "live.speak";
  }

  #take(event) {
    if (event.type === "ready") this.model = event.model;
    this.text.write(event);
  }
}

function showListening() {
  clearProblem();
  byId("audio").pause(); // it would be heard
  byId("result").hidden = true;
  offerRecording(null);
  for (const id of OTHERS) byId(id).disabled = true;
  byId("live-clock").textContent = formatClock(0);
  byId("stop").disabled = false;
  byId("live").hidden = false;
  meter.clear();
  showNote("live.asking");
  byId("stop").focus();
}

function hideListening() {
  const focused = byId("live").contains(document.activeElement) || document.activeElement === document.body;
  byId("live").hidden = true;
  for (const id of OTHERS) byId(id).disabled = false;
  if (focused) byId("record").focus(); // else the keyboard would begin at the top again
}

/** What is said under the head; nothing is written where it is said already, or screen readers would say it each time. */
function showNote(key) {
  note = key;
  if (byId("live-note").textContent !== t(key)) byId("live-note").textContent = t(key);
}

/** Text and recording of a session that has ended, and why it did not end as it should. */
function showEnd({ recording, text, model }, error, retry) {
  const duration = recording?.durationS ?? 0;
  const words = text.words;
  const worth = words.length > 0 || (error && duration >= OFFERED_S);
  if (recording && (worth || !error)) {
    const blob = recording.toWav();
    const name = nameRecording();
    if (words.length || !error) showResult({ blob, name, words, duration, inferenceTime: undefined, model });
    offerRecording(blob, name);
  }
  if (error) showProblem(error, retry);
}

/** As 2026-11-28-1405: sorts by itself, and is good in every file system. */
function nameRecording() {
  const now = new Date();
  const two = (number) => String(number).padStart(2, "0");
  const day = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
  return `dinle-${day}-${two(now.getHours())}${two(now.getMinutes())}.wav`;
}

/** A link that saves the recording; null takes it away. */
function offerRecording(blob, name = "") {
  const link = byId("recording-link");
  if (link.href) URL.revokeObjectURL(link.href);
  link.removeAttribute("href");
  if (blob) link.href = URL.createObjectURL(blob);
  link.download = link.textContent = name;
  byId("recording").hidden = !blob;
}
