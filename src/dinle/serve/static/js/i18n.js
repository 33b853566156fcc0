// The page's words in two languages, and numbers and times as each language writes them.
import { COMMON } from "./texts.js";
import { LIVE } from "./texts_live.js";
import { NUMBERS } from "./texts_numbers.js";
import { TRANSCRIBE } from "./texts_transcribe.js";

const KEY = "dinle.language";
const texts = {
  tr: { ...COMMON.tr, ...TRANSCRIBE.tr, ...LIVE.tr, ...NUMBERS.tr },
  en: { ...COMMON.en, ...TRANSCRIBE.en, ...LIVE.en, ...NUMBERS.en },
};
const listeners = new Set();
let language = "tr";

/** The language of the page: "tr" or "en". */
export function getLanguage() {
  return language;
}

/**
 * The text for a key in the page's language; {name} in it becomes values.name.
 * An unknown key is an error of the page, so it is thrown and not shown.
 */
export function t(key, values = {}) {
  const text = texts[language][key];
  if (text === undefined) throw new Error(`no text for ${key} in ${language}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** Call back now and after each change of the language. */
export function onLanguage(listener) {
  listeners.add(listener);
  listener(language);
}

/** Write all marked texts (data-t, data-t-label) in a language, remember it, and tell the listeners. */
export function setLanguage(next) {
  language = texts[next] ? next : "tr";
  remember(KEY, language);
  document.documentElement.lang = language;
  document.title = t("page.title");
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  }
  for (const listener of listeners) listener(language);
}

/** The language of the last visit; Turkish at the first. */
export function startLanguage() {
  setLanguage(recall(KEY) ?? "tr");
}

/** 1234.5 as the language writes it; `digits` after the point. */
export function formatNumber(value, digits = 0) {
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Seconds as m:ss, or h:mm:ss. */
export function formatClock(seconds) {
  const whole = Math.floor(Math.max(0, Number.isFinite(seconds) ? seconds : 0));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** Keep a choice in this browser; where it keeps nothing, the choice holds until the page is closed. */
export function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // storage is switched off
  }
}

/** A choice that was kept, or null. */
export function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}
