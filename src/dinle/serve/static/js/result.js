// The result of a recording: its words beside its sound, facts about the work, downloads.
import { toJson, toSrt, toTxt, toVtt } from "./exports.js";
import { formatNumber, onLanguage, t } from "./i18n.js";
import { loadPlayer, playFrom, showHeard, startPlayer } from "./player.js";
import { appendWords, clearWords, markWord, startWords } from "./words.js";

const TYPES = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };

const byId = (id) => document.getElementById(id);
const saves = [...document.querySelectorAll("[data-save]")];

/**
 * What is shown. `state` is "growing" while words come, "done", or "partial" where the work broke off.
 * `note` is the text's key that tells why there is no player, or null.
 */
let result = null;

/** Let the result's buttons work. */
export function startResult() {
  startWords(playFrom);
  startPlayer(markWord);
  byId("copy").addEventListener("click", copyText);
  for (const button of saves) button.addEventListener("click", () => save(button.dataset.save));
  onLanguage(() => {
    byId("copied").textContent = "";
    render();
  });
}

/**
 * Begin a result, not shown before its first words or its end.
 * @param {{blob: Blob | null, name: string, model: string}} recording blob: the sound, null where it was not kept;
 *   name: its file's, which downloads are named after; model: who hears it
 */
export function beginResult({ blob, name, model }) {
  const mine = { name, model, words: [], heard: 0, state: "growing", note: blob ? null : "player.none" };
  result = mine;
  clearWords();
  byId("copied").textContent = "";
  byId("result").hidden = true;
  loadPlayer(blob, () => {
    mine.note = "player.unplayable";
    if (result === mine) render();
  });
  render();
}

/** Add words that were found, with the seconds that are done. */
export function growResult(heard, words) {
  result.words.push(...words);
  result.heard = heard;
  appendWords(words);
  byId("result").hidden = false;
}

/** Put other words in the place of those that came: the same, as they are written. */
export function rewriteResult(words) {
  result.words = [...words];
  clearWords();
  appendWords(words);
}

/** End a result with what is known of it: {text, rawText?, duration, inferenceTime?, model}. */
export function endResult(known) {
  Object.assign(result, known, { state: "done" });
  showHeard(result.duration, result.words);
  byId("result").hidden = false;
  render();
}

/** End a result whose work broke off: words that came stay, and nothing is shown where none came. */
export function breakResult() {
  if (result?.state !== "growing") return;
  Object.assign(result, { state: "partial", text: joinWords(result.words), duration: result.heard });
  byId("result").hidden = !result.words.length;
  render();
}

/** The text that words make. */
export function joinWords(words) {
  return words.map((word) => word.word).join(" ");
}

/** All that is not words: they are the same in every language. */
function render() {
  if (!result) return;
  const { state, words, note } = result;
  const isSilent = state === "done" && !words.length;
  byId("facts").textContent = tellFacts();
  document.querySelector(".player").hidden = note !== null;
  byId("player-note").hidden = note === null;
  byId("player-note").textContent = note === null ? "" : t(note);
  byId("words").hidden = isSilent;
  byId("nothing").hidden = !isSilent;
  byId("legend").hidden = isSilent;
  for (const button of [byId("copy"), ...saves]) button.disabled = state === "growing";
}

function tellFacts() {
  const { state, heard, duration, inferenceTime, model } = result;
  if (state === "growing") return "";
  if (state === "partial") return t("facts.partial", { seconds: formatNumber(heard, 1) });
  const facts = [t("facts.duration", { seconds: formatNumber(duration, 1) })];
  if (inferenceTime > 0) {
    facts.push(t("facts.work", { seconds: formatNumber(inferenceTime, 2) }));
    facts.push(t("facts.speed", { times: formatNumber(duration / inferenceTime, 1) }));
  }
  return [...facts, model].filter(Boolean).join(" · ");
}

async function copyText() {
  const isCopied = (await copyByClipboard(result.text)) || copyBySelection(result.text);
  byId("copied").textContent = t(isCopied ? "copy.done" : "copy.failed");
}

async function copyByClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not permitted, or the page came over plain http: there is no clipboard
  }
}

/** The old way, which asks for no permission. */
function copyBySelection(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "hidden";
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  byId("copy").focus();
  return isCopied;
}

function save(form) {
  const { text, words, name } = result;
  const writers = { txt: () => toTxt(text), srt: () => toSrt(words), vtt: () => toVtt(words), json: () => toJson(result) };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([writers[form]()], { type: `${TYPES[form]};charset=utf-8` }));
  link.download = `${name.replace(/\.[^.]*$/, "") || "dinle"}.${form}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may still be asking where to
}
