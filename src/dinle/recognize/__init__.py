"""Audio bytes -> transcript. Needs numpy, onnxruntime, PyAV and soxr; never torch."""

from dinle.config import Backend
from dinle.recognize.audio import SAMPLE_RATE_HZ, AudioLimits, Waveform, check_audio, decode_audio, stream_audio
from dinle.recognize.beam import BeamRules
from dinle.recognize.bundle import Bundle, find_default_bundle, read_bundle, write_bundle
from dinle.recognize.ctc import GreedyDecoder, decode_greedy
from dinle.recognize.engine import Engine, OnnxEngine
from dinle.recognize.live_audio import LiveDecoder, PcmDecoder, PushDecoder
from dinle.recognize.load import load
from dinle.recognize.recognizer import BACKENDS, CtcRecognizer, Piece, Recognizer
from dinle.recognize.segments import Segment, Segmenter, SegmentRules, cut_segments
from dinle.recognize.stream import Final, LiveStream, Partial, SpeechStarted, StreamEvent, StreamRules
from dinle.recognize.transcript import Transcript, Word
from dinle.recognize.vocabulary import Vocabulary
from dinle.recognize.whisper import WhisperRecognizer, WindowRules
from dinle.recognize.whisper_engine import OnnxWhisperEngine, WhisperEngine
from dinle.recognize.whisper_vocabulary import WhisperVocabulary

__all__ = [
    "BACKENDS",
    "SAMPLE_RATE_HZ",
    "AudioLimits",
    "Backend",
    "BeamRules",
    "Bundle",
    "CtcRecognizer",
    "Engine",
    "Final",
    "GreedyDecoder",
    "LiveDecoder",
    "LiveStream",
    "OnnxEngine",
    "OnnxWhisperEngine",
    "Partial",
    "PcmDecoder",
    "Piece",
    "PushDecoder",
    "Recognizer",
    "Segment",
    "SegmentRules",
    "Segmenter",
    "SpeechStarted",
    "StreamEvent",
    "StreamRules",
    "Transcript",
    "Vocabulary",
    "Waveform",
    "WhisperEngine",
    "WhisperRecognizer",
    "WhisperVocabulary",
    "WindowRules",
    "Word",
    "check_audio",
    "cut_segments",
    "decode_audio",
    "decode_greedy",
    "find_default_bundle",
    "load",
    "read_bundle",
    "stream_audio",
    "write_bundle",
]
