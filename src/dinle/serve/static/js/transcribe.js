// "Transcribe a file": where recordings come from, and one piece of work at a time.
import { ApiError, authHeaders, readError } from "./api.js";
import { formatNumber, onLanguage, t } from "./i18n.js";
import { chosenModel, fillModels, startModelChoice } from "./model_choice.js";
import { chosenOptions, startOptions } from "./options.js";
import { getDuration } from "./player.js";
import { clearProblem, showProblem, startProblem } from "./problem.js";
import { beginResult, breakResult, endResult, growResult, joinWords, rewriteResult, startResult } from "./result.js";
import { sendRecording } from "./upload.js";

const SAMPLE = "static/sample.wav";
const HOPELESS = new Set(["audio_decode", "audio_limit", "upload_too_large", "empty_audio", "one_file"]); // of the file itself
const TOLD_PERCENT = 5; // the progress is read out: not every percent of it

const byId = (id) => document.getElementById(id);
let askForKey = async () => false;
let work = null; // the AbortController of what runs
let progress = null; // {phase: "fetching" | "upload" | "waiting" | "hearing", share?, heard?}

export { clearProblem, showProblem };

/** Let recordings come by button, by drop and from the sample. */
export function startTranscribe(frame) {
  askForKey = frame.askForKey;
  startProblem();
  startResult();
  startModelChoice();
  startOptions();
  startInputs();
  startDrop();
  byId("cancel").addEventListener("click", cancel);
  byId("record").addEventListener("click", cancel);
  onLanguage(showProgress);
}

/**
 * Show what was heard elsewhere, such as from the microphone.
 * @param {{blob: Blob | null, name: string, words: object[], duration: number, inferenceTime?: number, model: string}} heard
 */
export function showResult({ blob, name, words, duration, inferenceTime, model }) {
  cancel();
  beginResult({ blob, name, model });
  growResult(duration, words);
  endResult({ text: joinWords(words), duration, inferenceTime, model });
}

function startInputs() {
  const input = byId("file");
  byId("pick").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = ""; // so that the same file can be chosen again
    if (file) transcribe(async () => file);
  });
  byId("sample").addEventListener("click", () => transcribe(fetchSample));
}

function startDrop() {
  const drop = byId("drop");
  // Beside the card too: there the browser would leave the page for the file.
  document.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    drop.classList.toggle("over", drop.contains(event.target));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    drop.classList.remove("over");
    if (drop.contains(event.target) && !byId("pick").disabled) takeDrop(event.dataTransfer);
  });
}

function takeDrop({ files, items }) {
  const isFolder = items[0]?.webkitGetAsEntry?.()?.isDirectory;
  const [file] = files;
  if (files.length === 1 && !isFolder) transcribe(async () => file);
  else showProblem(new ApiError("one_file"));
}

async function fetchSample(signal) {
  let answer;
  try {
    answer = await fetch(SAMPLE, { signal, headers: authHeaders() });
  } catch {
    signal.throwIfAborted();
    throw new ApiError("unreachable");
  }
  if (!answer.ok) throw readError(await answer.text(), answer.status, answer.headers.get("Retry-After"));
  return new File([await answer.blob()], "sample.wav", { type: "audio/wav" });
}

/** Transcribe what `fetchFile` gives; work that runs is given up for it. */
async function transcribe(fetchFile) {
  cancel();
  clearProblem();
  byId("result").hidden = true;
  const mine = (work = new AbortController());
  setProgress({ phase: "fetching" });
  try {
    const file = await fetchFile(mine.signal);
    mine.signal.throwIfAborted();
    await hear(file, mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return; // whoever gave it up has tidied up
    await tellFailure(error, () => transcribe(fetchFile));
  }
  if (work === mine) work = null;
  if (!work) setProgress(null);
}

async function hear(file, signal) {
  beginResult({ blob: file, name: file.name, model: byId("model").value });
  const watcher = {
    onUpload: (share) => setProgress({ phase: "upload", share }),
    onWaiting: () => setProgress({ phase: "waiting" }),
    onHeard: (heard, words) => {
      setProgress({ phase: "hearing", heard });
      growResult(heard, words);
    },
  };
  watcher.onUpload(0);
  try {
    const options = chosenOptions();
    const answer = await sendRecording(file, { name: file.name, model: chosenModel(), options, signal, watcher });
    const { duration, model, words, raw_text: rawText } = answer.details;
    if (options.written) rewriteResult(words);
    endResult({ text: answer.text, rawText, inferenceTime: answer.inference_time, duration, model });
  } catch (error) {
    if (!signal.aborted) breakResult();
    throw error;
  }
}

async function tellFailure(error, retry) {
  const hasKey = error.code === "unauthorized" && (await askForKey());
  if (hasKey || error.code === "model_unknown") fillModels();
  if (hasKey) retry();
  else showProblem(error, HOPELESS.has(error.code) ? undefined : retry);
}

/** Give up what runs; words that came stay. */
function cancel() {
  if (!work) return;
  work.abort();
  work = null;
  setProgress(null);
  breakResult();
}

function setProgress(next) {
  progress = next;
  showProgress();
}

function showProgress() {
  byId("working").hidden = progress === null;
  if (!progress) return;
  const bar = byId("working-bar");
  const share = findShare();
  if (share === null) bar.removeAttribute("value"); // not known: the bar only shows that something goes on
  else bar.value = share;
  const text = tellProgress();
  if (byId("working-text").textContent !== text) byId("working-text").textContent = text;
}

function findShare() {
  if (progress.phase === "upload") return progress.share;
  const duration = getDuration();
  return progress.phase === "hearing" && duration ? Math.min(1, progress.heard / duration) : null;
}

function tellProgress() {
  if (progress.phase === "upload") {
    const percent = Math.floor((progress.share * 100) / TOLD_PERCENT) * TOLD_PERCENT;
    return t("work.upload", { percent: formatNumber(percent) });
  }
  if (progress.phase !== "hearing") return t(`work.${progress.phase}`);
  const [heard, duration] = [formatNumber(Math.floor(progress.heard)), getDuration()];
  return duration ? t("work.hearing", { heard, duration: formatNumber(Math.ceil(duration)) }) : t("work.heard", { heard });
}
