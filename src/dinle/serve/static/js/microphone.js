// The microphone as pieces of 16-bit samples, and in words that people understand why there is none.
import { ApiError } from "./api.js";

const RATE_HZ = 16_000; // the model's own: nothing has to be resampled on the server
const STREAM_RATES_HZ = [8_000, 16_000, 24_000, 44_100, 48_000]; // what WS /stream takes
const LAST_PIECE_MS = 300; // the audio thread answers within a piece, or it is suspended and has nothing
const REASONS = {
  NotAllowedError: "microphone_denied",
  SecurityError: "microphone_denied",
  NotFoundError: "microphone_missing",
  NotReadableError: "microphone_busy",
  AbortError: "microphone_busy",
};
// The sound as it is. The page plays nothing while it listens, so there is no echo to cancel; what noise suppressors take
// away of speech is gone for the model too, which was trained with noise in it; and gain control drives near voices into
// clipping, while the model hears one that is 30 dB quieter just as well.
const WANTED = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/**
 * Ask for the microphone and listen. `onPiece(samples, peak)` is called each 100 ms with an Int16Array and its loudest
 * sample, 0 to 1. Gives { rateHz, lost, stop, close }: `lost` resolves with an ApiError when the microphone is taken away;
 * `stop()` resolves after the last piece; `close()` ends at once.
 * Throws an ApiError whose code begins with "microphone_", or "unreachable".
 */
export async function openMicrophone(onPiece) {
  if (!navigator.mediaDevices?.getUserMedia) throw new ApiError("microphone_insecure");
  const sound = await askForSound();
  let source;
  try {
    source = makeSource(sound);
    await loadRecorder(source.context);
  } catch (error) {
    release(sound, source?.context);
    throw error;
  }
  return listen(sound, source, onPiece);
}

async function askForSound() {
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: WANTED });
  } catch (error) {
    throw new ApiError(REASONS[error.name] ?? "microphone_failed", `${error.name}: ${error.message}`);
  }
}

/** The sound's source node in a context whose rate the service takes. */
function makeSource(sound) {
  // Firefox before 2025 connects no microphone to a context of another rate than the microphone's: then in the context's own.
  for (const options of [{ sampleRate: RATE_HZ }, {}, { sampleRate: 48_000 }]) {
    const context = new AudioContext(options);
    try {
      if (STREAM_RATES_HZ.includes(context.sampleRate)) return context.createMediaStreamSource(sound);
    } catch (error) {
      if (error.name !== "NotSupportedError") throw error;
    }
    context.close();
  }
  throw new ApiError("microphone_failed", `no sample rate of ${STREAM_RATES_HZ.join(", ")} Hz`);
}

async function loadRecorder(context) {
  try {
    await context.audioWorklet.addModule(new URL("./recorder_worklet.js", import.meta.url));
  } catch {
    throw new ApiError("unreachable");
  }
}

function listen(sound, source, onPiece) {
  const context = source.context;
  // Mixed down to one channel by the browser. The output stays silent: it is there because browsers run only nodes that
  // lead somewhere.
  const recorder = new AudioWorkletNode(context, "recorder", { channelCount: 1, channelCountMode: "explicit" });
  let end;
  const ended = new Promise((resolve) => (end = resolve));
  recorder.port.onmessage = ({ data }) => {
    if (data.samples.length) onPiece(data.samples, data.peak);
    if (data.last) end();
  };
  source.connect(recorder).connect(context.destination);
  context.resume().catch(() => {}); // Safari starts contexts suspended; a closed one needs nothing
  const close = () => {
    recorder.port.onmessage = null;
    release(sound, context);
  };
  const stop = async () => {
    recorder.port.postMessage("end");
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, LAST_PIECE_MS))]);
    close();
  };
  const lost = new Promise((resolve) => {
    sound.getAudioTracks()[0].addEventListener("ended", () => resolve(new ApiError("microphone_lost")));
  });
  return { rateHz: context.sampleRate, lost, stop, close };
}

/** Let the microphone go, so that the browser's sign for it goes out. */
function release(sound, context) {
  for (const track of sound.getTracks()) track.stop();
  if (context && context.state !== "closed") context.close();
}
