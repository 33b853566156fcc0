// The one place where the page tells what went wrong.
import { describeError } from "./api.js";
import { onLanguage, t } from "./i18n.js";

const box = document.getElementById("problem");
let problem = null;

/** Tell again in the new language after each change of it. */
export function startProblem() {
  onLanguage(render);
}

/**
 * Tell an error; with a button where `retry` is given.
 * @param {Error} error
 * @param {(function(): void)=} retry called after the button was pressed and the message is gone
 */
export function showProblem(error, retry) {
  problem = { error, retry };
  render();
}

/** Take the message away. */
export function clearProblem() {
  problem = null;
  render();
}

function render() {
  box.hidden = problem === null;
  box.replaceChildren();
  if (!problem) return;
  const { error, retry } = problem;
  const text = document.createElement("span");
  text.textContent = describeError(error);
  box.append(text);
  if (!retry) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = t("retry");
  button.addEventListener("click", () => {
    clearProblem();
    retry();
  });
  box.append(button);
}
