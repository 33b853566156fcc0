"""The exceptions that dinle raises on purpose.

Every message says what came, what was expected and what to do. Where a builtin exception means the same, the class is
also that builtin, so that ordinary ``except`` clauses work::

    DinleError
    ├── UsageError (ValueError)              a flag, a config field or an argument that does not fit
    ├── MissingExtraError (ImportError)      an optional dependency group is not installed
    ├── AudioError (ValueError)              the sound itself
    │   ├── AudioNotFoundError (FileNotFoundError)
    │   ├── AudioDecodeError                 not audio, or damaged
    │   ├── EmptyAudioError                  audio without a single sample
    │   └── AudioLimitError                  longer or larger than the caller allows
    ├── BundleError                          the model folder
    │   ├── BundleNotFoundError (FileNotFoundError)
    │   ├── BundleCorruptError               a missing file, a wrong hash, an unreadable bundle.json
    │   └── PrecisionUnavailableError        the bundle lacks (or refuses) the precision asked for
    ├── TextError (ValueError)               labels and vocabularies
    │   ├── VocabularyError                  duplicate or missing tokens
    │   └── UnknownCharacterError            a label holds a character the vocabulary lacks
    ├── DatasetError                         manifests and sources
    │   ├── ManifestError (ValueError)       a manifest line, or the file it names
    │   ├── HubUnreachableError (ConnectionError)
    │   ├── TooManyBadClipsError             more clips were dropped than the config allows
    │   ├── dinle.build.speech.SpeechEngineError      a speaking engine is missing or failed
    │   └── dinle.build.speech.UnspeakableTextError   a text that an engine cannot say
    ├── TrainingError                        a run that must not go on
    │   ├── LabelTooLongError                a label that needs more frames than its clip has
    │   └── LossNotFiniteError               NaN or infinite loss
    ├── ExportError
    │   └── ParityError                      ONNX and torch disagree, or a row depends on its neighbours
    ├── QualityGateError                     int8 loses more than the config allows
    ├── dinle.recognize.vad.SpeechModelError (ImportError)   the speech detector's weights are missing or unreadable
    ├── dinle.serve.errors                   what HTTP answers are made of
    │   ├── ServiceBusyError                 every worker and every waiting place is taken
    │   │   └── dinle.scale.proxy.ReplicaLostError   the replicas that were asked died
    │   ├── StreamsBusyError                 every live stream is taken
    │   ├── ClientGoneError                  the client hung up before its answer was ready
    │   ├── DeadlineError                    not done in time
    │   ├── IdleError                        nothing came on a live stream for too long
    │   ├── UnauthorizedError                no valid API key
    │   ├── ModelUnknownError                no model of that name
    │   ├── ValueRefusedError                a parameter that the service cannot follow
    │   │   ├── HotWordsRefusedError         hot words that are too many, or none
    │   │   └── WrittenUnavailableError      the written form, where damga is not installed
    │   ├── ProtocolError                    a live stream's message that makes no sense
    │   └── dinle.serve.live_openai.InputAudioBufferCommitEmptyError   a commit of nothing
    ├── dinle.serve.process.ServiceFailedError   a service that was started did not answer
    ├── dinle.loadtest.driver.GeneratorFailedError   the load generator ended before it had answered
    ├── dinle.scale.bulk.ClusterFailedError      Ray could not run a job to its end
    └── dinle.scale.attempts.ProcessLostError    the process died each time that it transcribed a recording
"""

from __future__ import annotations


class DinleError(Exception):
    """Base of every exception that dinle raises on purpose."""


class UsageError(DinleError, ValueError):
    """A flag, a config field or an argument does not fit."""


class MissingExtraError(DinleError, ImportError):
    """An optional dependency group is not installed."""

    def __init__(self, extra: str, module: str) -> None:
        self.extra = extra
        super().__init__(f"this needs the package {module!r}, which is not installed: pip install 'dinle[{extra}]'")


class AudioError(DinleError, ValueError):
    """The sound itself is unusable."""


class AudioNotFoundError(AudioError, FileNotFoundError):
    """There is no file at the given place."""


class AudioDecodeError(AudioError):
    """The bytes are not audio, or are damaged."""


class EmptyAudioError(AudioError):
    """The audio holds no samples."""


class AudioLimitError(AudioError):
    """The audio is longer or larger than the caller allows."""


class BundleError(DinleError):
    """The model folder is unusable."""


class BundleNotFoundError(BundleError, FileNotFoundError):
    """There is no bundle at the given place."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, changed or unreadable."""


class PrecisionUnavailableError(BundleError):
    """The bundle lacks, or its quality gate refused, the precision asked for."""


class TextError(DinleError, ValueError):
    """A label or a vocabulary is unusable."""


class VocabularyError(TextError):
    """The vocabulary has duplicate or missing tokens."""


class UnknownCharacterError(TextError):
    """A label holds a character that the vocabulary lacks."""


class DatasetError(DinleError):
    """A source of speech is unusable."""


class ManifestError(DatasetError, ValueError):
    """A manifest line, or the file that it names, is unusable."""


class HubUnreachableError(DatasetError, ConnectionError):
    """The Hugging Face hub does not answer."""


class TooManyBadClipsError(DatasetError):
    """More clips were dropped as corrupt than the config allows."""


class TrainingError(DinleError):
    """A training run must not go on."""


class LabelTooLongError(TrainingError):
    """A label needs more frames than its clip has."""


class LossNotFiniteError(TrainingError):
    """The loss became NaN or infinite."""


class ExportError(DinleError):
    """A checkpoint could not be exported."""


class ParityError(ExportError):
    """ONNX and torch disagree, or a row depends on its neighbours."""


class QualityGateError(DinleError):
    """A quantised model loses more than the config allows."""
