// What was said, kept as samples, and as a WAV file that can be played and saved.
const KEPT_S = 30 * 60; // 58 MB at 16 kHz; a phone's browser ends pages that hold much more
const HEADER_BYTES = 44;

/** Samples of one microphone, kept up to half an hour; of longer sound only the length is known. */
export class Recording {
  #pieces = [];
  #samples = 0;

  constructor(rateHz) {
    this.rateHz = rateHz;
  }

  /** Add an Int16Array. */
  add(samples) {
    this.#samples += samples.length;
    if (this.full) this.#pieces = [];
    else this.#pieces.push(samples);
  }

  /** How long the sound is, kept or not. */
  get durationS() {
    return this.#samples / this.rateHz;
  }

  /** Whether it was too long to be kept. */
  get full() {
    return this.durationS > KEPT_S;
  }

  /** The sound as a WAV file; null where it was too long to be kept. */
  toWav() {
    return this.full ? null : makeWav(this.#pieces, this.rateHz);
  }
}

/** A WAV file of mono 16-bit samples: Int16Arrays, which are little-endian wherever browsers run. */
export function makeWav(pieces, rateHz) {
  const bytes = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  const writeText = (at, text) => [...text].forEach((letter, n) => header.setUint8(at + n, letter.charCodeAt(0)));
  writeText(0, "RIFF");
  header.setUint32(4, HEADER_BYTES - 8 + bytes, true);
  writeText(8, "WAVEfmt ");
  header.setUint32(16, 16, true); // bytes of what follows up to "data"
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channels
  header.setUint32(24, rateHz, true);
  header.setUint32(28, 2 * rateHz, true); // bytes a second
  header.setUint16(32, 2, true); // bytes a frame
  header.setUint16(34, 16, true); // bits a sample
  writeText(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, ...pieces], { type: "audio/wav" });
}
