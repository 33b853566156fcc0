// How loud the microphone is: the last seconds as bars, the newest at the right.
const BAR_PX = 3;
const GAP_PX = 2;
const KEPT = 1_000; // bars: more than the widest screen shows
const QUIET_DB = -60; // drawn as nothing; speech lies between -40 and -10

/** Bars on a canvas, in the colour of its CSS `color`. */
export class LevelMeter {
  #canvas;
  #peaks = [];

  constructor(canvas) {
    this.#canvas = canvas;
    document.addEventListener("theme", () => this.#draw());
  }

  /** Add the loudest sample of the last piece, 0 to 1. */
  add(peak) {
    this.#peaks.push(peak);
    if (this.#peaks.length > KEPT) this.#peaks.shift();
    this.#draw();
  }

  /** Forget all. */
  clear() {
    this.#peaks = [];
    this.#draw();
  }

  #draw() {
    const [width, height] = this.#fit();
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    context.fillStyle = getComputedStyle(this.#canvas).color;
    const step = BAR_PX + GAP_PX;
    const room = Math.floor(width / step);
    const shown = room ? this.#peaks.slice(-room) : [];
    shown.forEach((peak, n) => {
      const tall = Math.max(2, scaleLevel(peak) * height);
      context.fillRect(width - (shown.length - n) * step, (height - tall) / 2, BAR_PX, tall);
    });
  }

  /** Give the canvas as many pixels as the screen has there; its size in CSS pixels. */
  #fit() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = window.devicePixelRatio || 1;
    const wanted = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.#canvas.width !== wanted[0] || this.#canvas.height !== wanted[1]) {
      [this.#canvas.width, this.#canvas.height] = wanted;
    }
    this.#canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    return [width, height];
  }
}

/** A level of 0 to 1 as a height of 0 to 1, in decibels as ears hear it. */
function scaleLevel(peak) {
  const levelDb = 20 * Math.log10(Math.max(peak, 1e-6));
  return Math.max(0, 1 - levelDb / QUIET_DB);
}
