"""Audio bytes -> transcript. Needs numpy, onnxruntime, PyAV and soxr; never torch."""

from dinle.config import Backend
from dinle.recognize.audio import SAMPLE_RATE_HZ, AudioLimits, Waveform, decode_audio, stream_audio
from dinle.recognize.bundle import Bundle, find_default_bundle, read_bundle, write_bundle
from dinle.recognize.ctc import GreedyDecoder, decode_greedy
from dinle.recognize.engine import Engine, OnnxEngine
from dinle.recognize.load import load
from dinle.recognize.recognizer import BACKENDS, Recognizer
from dinle.recognize.transcript import Transcript, Word
from dinle.recognize.vocabulary import Vocabulary

__all__ = [
    "BACKENDS",
    "SAMPLE_RATE_HZ",
    "AudioLimits",
    "Backend",
    "Bundle",
    "Engine",
    "GreedyDecoder",
    "OnnxEngine",
    "Recognizer",
    "Transcript",
    "Vocabulary",
    "Waveform",
    "Word",
    "decode_audio",
    "decode_greedy",
    "find_default_bundle",
    "load",
    "read_bundle",
    "stream_audio",
    "write_bundle",
]
