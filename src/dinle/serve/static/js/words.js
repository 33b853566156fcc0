// The words of a transcript: each a button at its time, coloured by how sure the model is of it.
import { formatClock, formatNumber, t } from "./i18n.js";

const LOW_CONFIDENCE = 0.5; // below: likely wrong
const HIGH_CONFIDENCE = 0.8; // from here on: likely right
const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
const LINES = { ArrowDown: 1, ArrowUp: -1 };

const text = document.getElementById("words");
let words = [];
let buttons = [];
let marked = -1; // the word at the playback position
let stop = 0; // the one word that the Tab key reaches

/**
 * Make the words answer to pointer and keyboard.
 * @param {function(number): void} onChoose called with the start of the word that was chosen, in seconds
 */
export function startWords(onChoose) {
  text.addEventListener("click", (event) => {
    const place = placeOf(event.target);
    if (place < 0) return;
    setStop(place);
    onChoose(words[place].start);
  });
  text.addEventListener("keydown", moveByKey);
  // A hint for each of an hour's words would be thousands of texts that nobody reads: it is written where it is asked for.
  for (const type of ["pointerover", "focusin"]) {
    text.addEventListener(type, (event) => describeWord(event.target));
  }
}

/** Forget all words. */
export function clearWords() {
  text.replaceChildren();
  words = [];
  buttons = [];
  marked = -1;
  stop = 0;
}

/** Add words at the end, in one piece: a long recording must not be laid out once a word. */
export function appendWords(more) {
  const fragment = document.createDocumentFragment();
  for (const word of more) {
    if (buttons.length) fragment.append(" ");
    const button = makeButton(word, buttons.length);
    buttons.push(button);
    fragment.append(button);
  }
  words.push(...more);
  text.append(fragment);
}

/** Mark the word that is said at a time, in seconds; none between words. */
export function markWord(time) {
  const place = findWord(words, time);
  if (place === marked) return;
  setMark(marked, false);
  setMark(place, true);
  marked = place;
}

/** Index of the word that is said at a time, -1 where there is none. Words are in order. */
export function findWord(ordered, time) {
  let [low, high] = [0, ordered.length]; // the first word that begins later lies between them
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ordered[middle].start <= time) low = middle + 1;
    else high = middle;
  }
  return low > 0 && time < ordered[low - 1].end ? low - 1 : -1;
}

function makeButton({ word, confidence }, place) {
  const button = document.createElement("button");
  const level = confidence < LOW_CONFIDENCE ? 0 : confidence < HIGH_CONFIDENCE ? 1 : 2;
  button.type = "button";
  button.className = `word c${level}`;
  button.textContent = word;
  button.tabIndex = place === stop ? 0 : -1;
  return button;
}

function setMark(place, isNow) {
  const button = buttons[place];
  if (!button) return;
  button.classList.toggle("now", isNow);
  if (isNow) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

function placeOf(target) {
  const button = target.closest?.("button.word");
  return button ? buttons.indexOf(button) : -1;
}

/** Time and confidence in the word's hint, in the page's language. The button's name stays the word alone. */
function describeWord(target) {
  const place = placeOf(target);
  if (place < 0) return;
  const { start, confidence } = words[place];
  const values = { time: formatTenths(start), percent: formatNumber(confidence * 100) };
  buttons[place].title = t("word.hint", values);
}

/** Seconds as 0:01,2. */
function formatTenths(seconds) {
  const tenths = Math.round(seconds * 10);
  const [whole, rest] = [Math.floor(tenths / 10), tenths % 10];
  return formatClock(whole) + formatNumber(rest / 10, 1).slice(1);
}

function moveByKey(event) {
  const place = placeOf(event.target);
  if (place < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
  let next;
  if (event.key in STEPS) next = Math.min(buttons.length - 1, Math.max(0, place + STEPS[event.key]));
  else if (event.key in LINES) next = findAcross(place, LINES[event.key]);
  else return;
  event.preventDefault();
  setStop(next);
  buttons[next].focus();
}

/** The word above or below: the first of the next line, in a direction, that reaches this word's place in it. */
function findAcross(place, direction) {
  const from = buttons[place];
  let next = place;
  let line = null;
  for (let each = place + direction; buttons[each]; each += direction) {
    const { offsetTop, offsetLeft, offsetWidth } = buttons[each];
    if (offsetTop === from.offsetTop) continue;
    line ??= offsetTop;
    if (offsetTop !== line) break;
    next = each;
    const isThere = direction > 0 ? offsetLeft + offsetWidth > from.offsetLeft : offsetLeft <= from.offsetLeft;
    if (isThere) break;
  }
  return next;
}

function setStop(place) {
  if (buttons[stop]) buttons[stop].tabIndex = -1;
  stop = place;
  buttons[stop].tabIndex = 0;
}
