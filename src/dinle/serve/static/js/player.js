// Plays the recording of a result: button, slider, waveform and clock follow one <audio> element.
import { formatClock } from "./i18n.js";
import { readPeaks, Wave } from "./wave.js";

const KEYS_S = { ArrowRight: 5, ArrowUp: 5, ArrowLeft: -5, ArrowDown: -5 }; // as media players do; the slider's own step is tiny
const SEEK_STEPS = 1_000; // about a pixel each

const byId = (id) => document.getElementById(id);
const audio = byId("audio");
const seek = byId("seek");
const wave = new Wave(byId("wave"));

let address = null; // of the recording; revoked when the next one comes
let unread = null; // the recording, until its waveform is asked for: that waits for its length
let told = 0; // the recording's length as the server tells it, for what the browser finds endless
let spokenWords = [];
let listener = () => {};
let frame = 0;

/**
 * Let the controls work.
 * @param {function(number): void} onPosition called with the place in seconds whenever it changes
 */
export function startPlayer(onPosition) {
  listener = onPosition;
  byId("play").addEventListener("click", () => (audio.paused ? play() : audio.pause()));
  seek.addEventListener("input", () => seekTo(Number(seek.value)));
  seek.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS_S)) return;
    event.preventDefault();
    seekTo(Math.min(getDuration() ?? 0, Math.max(0, audio.currentTime + KEYS_S[event.key])));
  });
  byId("wave").addEventListener("click", (event) => {
    seekTo((event.offsetX / byId("wave").clientWidth) * (getDuration() ?? 0));
  });
  for (const type of ["play", "pause", "ended"]) audio.addEventListener(type, followPlaying);
  for (const type of ["seeked", "timeupdate"]) audio.addEventListener(type, showPosition);
  audio.addEventListener("durationchange", showLength);
}

/**
 * Take a recording, or null where there is none.
 * @param {Blob | null} blob
 * @param {function(): void} onUnplayable called where the browser cannot play it
 */
export function loadPlayer(blob, onUnplayable) {
  unload();
  if (!blob?.size) return; // an empty file: the server tells
  address = URL.createObjectURL(blob);
  unread = blob;
  audio.onerror = onUnplayable;
  audio.src = address;
}

/** Length of the recording in seconds: the browser's, else the server's; undefined where neither knows it. */
export function getDuration() {
  if (Number.isFinite(audio.duration)) return audio.duration;
  return told || undefined;
}

/** Tell what the server found: the length in seconds and the words, to show where they are. */
export function showHeard(duration, words) {
  told = duration;
  spokenWords = words;
  showLength();
}

/** Play from a place, in seconds. */
export function playFrom(seconds) {
  if (!audio.src) return;
  seekTo(seconds);
  play();
}

function unload() {
  audio.pause();
  audio.removeAttribute("src");
  audio.load(); // forgets the recording before
  if (address) URL.revokeObjectURL(address);
  address = unread = audio.onerror = null;
  wave.showPeaks(null);
  showHeard(0, []);
  showPosition();
}

function seekTo(seconds) {
  audio.currentTime = seconds;
  showPosition();
}

function play() {
  audio.play().catch(() => {}); // what cannot be played is told by the element's error event
}

function followPlaying() {
  const isPlaying = !audio.paused && !audio.ended;
  byId("play").setAttribute("aria-pressed", String(isPlaying));
  cancelAnimationFrame(frame);
  if (isPlaying) frame = requestAnimationFrame(followFrame);
  else showPosition();
}

function followFrame() {
  showPosition();
  frame = requestAnimationFrame(followFrame);
}

function showPosition() {
  const seconds = audio.currentTime;
  const duration = getDuration();
  // Moving the slider lays out the page, which is slow beside thousands of words: only steps that can be seen.
  if (Math.abs(Number(seek.value) - seconds) >= (duration ?? 0) / SEEK_STEPS) seek.value = String(seconds);
  const clock = formatClock(seconds);
  if (byId("position").textContent !== clock) {
    byId("position").textContent = clock;
    seek.setAttribute("aria-valuetext", clock);
  }
  wave.showPlayed(duration ? Math.min(1, seconds / duration) : 0);
  listener(seconds);
}

function showLength() {
  const duration = getDuration() ?? 0;
  byId("length").textContent = formatClock(duration);
  seek.max = String(duration || 1);
  wave.showSpoken(duration ? spokenWords.map(({ start, end }) => [start / duration, end / duration]) : []);
  if (unread && duration) readWave();
}

async function readWave() {
  const [blob, mine] = [unread, address];
  unread = null;
  const peaks = await readPeaks(blob, getDuration());
  if (mine === address) wave.showPeaks(peaks); // another may have been loaded meanwhile
}
