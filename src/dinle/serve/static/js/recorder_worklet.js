// Runs on the browser's audio thread: float frames in, pieces of 16-bit samples with their peak out.
/* global AudioWorkletProcessor, registerProcessor, sampleRate */
const PIECE_S = 0.1; // what the service likes best: drafts come no sooner with smaller pieces

class Recorder extends AudioWorkletProcessor {
  #piece = new Int16Array(Math.round(PIECE_S * sampleRate));
  #filled = 0;
  #peak = 0;
  #going = true;

  constructor() {
    super();
    // Any message is the order to end: what is not a whole piece yet is sent as the last one.
    this.port.onmessage = () => {
      this.#going = false;
      this.#post(true);
    };
  }

  process([input]) {
    for (const frame of this.#going ? (input[0] ?? []) : []) {
      const level = Math.max(-1, Math.min(1, frame));
      this.#peak = Math.max(this.#peak, Math.abs(level));
      this.#piece[this.#filled] = Math.min(0x7fff, Math.round(level * 0x8000));
      this.#filled += 1;
      if (this.#filled === this.#piece.length) this.#post(false);
    }
    return this.#going;
  }

  #post(last) {
    const samples = this.#piece.slice(0, this.#filled);
    this.port.postMessage({ samples, peak: this.#peak, last }, [samples.buffer]);
    this.#filled = 0;
    this.#peak = 0;
  }
}

registerProcessor("recorder", Recorder);
