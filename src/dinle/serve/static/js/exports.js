// A transcript as a file: the same text, subtitles and JSON that `dinle transcribe` writes.
//
// Words are as the server sends them: {word, start, end, confidence}, times in seconds.

// Broadcast practice for subtitles: two lines of 42 characters at most, a new cue after a pause.
const CUE_CHARACTERS = 84;
const CUE_S = 7.0;
const CUE_PAUSE_S = 0.8;

/** The text alone. */
export function toTxt(text) {
  return text;
}

/** SubRip subtitles; empty where nothing was said. */
export function toSrt(words) {
  return splitCues(words)
    .map((cue, place) => `${place + 1}\n${writeCue(cue, ",")}`)
    .join("");
}

/** WebVTT subtitles (https://www.w3.org/TR/webvtt1/). */
export function toVtt(words) {
  return `WEBVTT\n\n${splitCues(words)
    .map((cue) => writeCue(cue, "."))
    .join("")}`;
}

/**
 * One line of JSON; seconds rounded to milliseconds, null where a value is not known.
 * @param {{text: string, rawText?: string, words: object[], duration: number, inferenceTime?: number, model: string}} result
 */
export function toJson({ text, rawText, words, duration, inferenceTime, model }) {
  return JSON.stringify({
    text,
    raw_text: rawText, // left out where there is none
    words: words.map(({ word, start, end, confidence }) => ({
      text: word,
      start_s: round(start, 3),
      end_s: round(end, 3),
      confidence: round(confidence, 3),
    })),
    duration_s: round(duration, 3),
    inference_s: round(inferenceTime, 4),
    model,
  });
}

/** Part words into subtitle cues, by length, by time and at pauses. */
export function splitCues(words) {
  const cues = [];
  let cue = [];
  for (const word of words) {
    const full =
      cue.length &&
      (countCharacters(spell(cue)) + 1 + countCharacters(word.word) > CUE_CHARACTERS ||
        word.end - cue[0].start > CUE_S ||
        word.start - cue.at(-1).end > CUE_PAUSE_S);
    if (full) {
      cues.push(cue);
      cue = [];
    }
    cue.push(word);
  }
  return cue.length ? [...cues, cue] : cues;
}

function spell(words) {
  return words.map((word) => word.word).join(" ");
}

/** Code points, as Python counts them; .length counts UTF-16 units. */
function countCharacters(text) {
  return [...text].length;
}

function writeCue(cue, mark) {
  return `${writeClock(cue[0].start, mark)} --> ${writeClock(cue.at(-1).end, mark)}\n${spell(cue)}\n\n`;
}

function writeClock(seconds, mark) {
  const ms = roundHalfEven(seconds * 1000);
  const pad = (value, width = 2) => String(value).padStart(width, "0");
  const [hours, minutes] = [Math.floor(ms / 3_600_000), Math.floor(ms / 60_000) % 60];
  return `${pad(hours)}:${pad(minutes)}:${pad(Math.floor(ms / 1000) % 60)}${mark}${pad(ms % 1000, 3)}`;
}

/** The nearest whole number, and of two the even one: Python's round(). */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Python's round(value, digits); null for what is not known. */
function round(value, digits) {
  if (value === undefined || value === null) return null;
  const isTie = Number.isInteger(value * 2 ** (digits + 1)); // only such a number can lie exactly between two
  return isTie ? roundHalfEven(value * 10 ** digits) / 10 ** digits : Number(value.toFixed(digits));
}
