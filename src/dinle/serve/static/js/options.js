// What is asked for besides the text: names to expect, and numbers as digits. Both are kept in this browser.
import { recall, remember } from "./i18n.js";

const HOT_WORDS = "dinle.hotwords";
const WRITTEN = "dinle.written";

const words = document.getElementById("hotwords");
const written = document.getElementById("written");

/** Fill in the choices of the last visit; they are open to be seen where there are some. */
export function startOptions() {
  words.value = recall(HOT_WORDS) ?? "";
  written.checked = recall(WRITTEN) === "true";
  document.getElementById("options").open = words.value !== "" || written.checked;
  words.addEventListener("input", () => remember(HOT_WORDS, words.value));
  written.addEventListener("change", () => remember(WRITTEN, String(written.checked)));
}

/**
 * What is asked for now.
 * @returns {{hotwords: string[], written: boolean}}
 */
export function chosenOptions() {
  const hotwords = words.value.split(",").map((word) => word.trim());
  return { hotwords: hotwords.filter(Boolean), written: written.checked };
}
