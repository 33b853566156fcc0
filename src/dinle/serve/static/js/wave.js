// A recording's waveform: loudness over time, where words were heard, and how far it is played.

const RATE_HZ = 8_000; // the least that every browser decodes to; enough to see speech
const PEAKS = 2_000; // more than a canvas has room for
const MAX_BYTES = 150 * 1024 * 1024;
const MAX_S = 15 * 60; // decoding an hour in stereo took Chromium 3.2 GB and half a minute: a quarter is what a phone bears
const BAR_PX = 2;
const GAP_PX = 1;
const SILENT_ALPHA = 0.45; // bars outside of words
const FLAT_LEVEL = 0.4; // words where the sound's own level is not known

/**
 * How loud a recording is over time: PEAKS values from 0 to 1.
 * Null where the browser cannot decode it, or decoded sound would take too much memory.
 * @param {Blob} blob
 * @param {number} duration in seconds
 */
export async function readPeaks(blob, duration) {
  if (blob.size > MAX_BYTES || duration > MAX_S) return null;
  try {
    const context = new OfflineAudioContext(1, 1, RATE_HZ);
    return findPeaks(await context.decodeAudioData(await blob.arrayBuffer()));
  } catch {
    return null;
  }
}

function findPeaks(sound) {
  const peaks = new Float32Array(PEAKS);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const samples = sound.getChannelData(channel);
    for (let bucket = 0; bucket < PEAKS; bucket++) {
      const end = Math.ceil(((bucket + 1) * samples.length) / PEAKS);
      for (let place = Math.floor((bucket * samples.length) / PEAKS); place < end; place++) {
        peaks[bucket] = Math.max(peaks[bucket], Math.abs(samples[place]));
      }
    }
  }
  const loudest = peaks.reduce((most, peak) => Math.max(most, peak), 0);
  return loudest > 0 ? peaks.map((peak) => peak / loudest) : peaks;
}

/** Draws on a canvas, as often as its size, the colours or what is shown change. */
export class Wave {
  #canvas;
  #peaks = null;
  #spoken = []; // [start, end] of words as shares of the recording
  #played = 0;
  #drawn = ""; // what the canvas shows, so that a step of less than a bar costs nothing

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw(true)).observe(canvas);
    document.addEventListener("theme", () => this.#draw(true));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw(true));
  }

  /** Show these peaks; for null a line, raised where words are. */
  showPeaks(peaks) {
    this.#peaks = peaks;
    this.#draw(true);
  }

  /** Show where words are, each as a pair of shares of the recording; none where they are not known. */
  showSpoken(spoken) {
    this.#spoken = spoken;
    this.#draw(true);
  }

  /** Show how far it is played, as a share from 0 to 1. */
  showPlayed(share) {
    this.#played = share;
    this.#draw();
  }

  #draw(force = false) {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const step = BAR_PX + GAP_PX;
    const bars = Math.floor(width / step);
    if (!bars) return; // not shown now; the observer calls again
    const playedBars = Math.round(this.#played * bars);
    const state = `${width} ${height} ${devicePixelRatio} ${playedBars}`;
    if (!force && state === this.#drawn) return;
    this.#drawn = state;
    const voiced = this.#findVoiced(bars);
    const levels = this.#peaks ? this.#spread(bars) : Float32Array.from(voiced ?? [], (is) => is * FLAT_LEVEL);
    const brush = this.#prepare(width, height);
    // Canvases know no CSS variables: the style sheet hands the two colours over in properties that are resolved.
    const { color, caretColor } = getComputedStyle(this.#canvas);
    for (let bar = 0; bar < bars; bar++) {
      const tall = Math.max(BAR_PX, (levels[bar] ?? 0) * (height - 2));
      brush.fillStyle = bar < playedBars ? caretColor : color;
      brush.globalAlpha = voiced && !voiced[bar] ? SILENT_ALPHA : 1;
      brush.fillRect(bar * step, (height - tall) / 2, BAR_PX, tall);
    }
  }

  #prepare(width, height) {
    const canvas = this.#canvas;
    canvas.width = Math.round(width * devicePixelRatio); // setting it clears it
    canvas.height = Math.round(height * devicePixelRatio);
    const brush = canvas.getContext("2d");
    brush.scale(canvas.width / width, canvas.height / height);
    return brush;
  }

  /** The loudest peak under each bar. */
  #spread(bars) {
    const levels = new Float32Array(bars);
    this.#peaks.forEach((peak, place) => {
      const bar = Math.min(bars - 1, Math.floor((place * bars) / PEAKS));
      levels[bar] = Math.max(levels[bar], peak);
    });
    return levels;
  }

  /** Which bars lie in words; null where no words are known. */
  #findVoiced(bars) {
    if (!this.#spoken.length) return null;
    const voiced = new Uint8Array(bars);
    for (const [start, end] of this.#spoken) voiced.fill(1, Math.floor(start * bars), Math.ceil(end * bars));
    return voiced;
  }
}
