"""Transcripts as the tokens that a Whisper decoder learns to write."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from dinle.build.data import LabelledClip
from dinle.errors import LabelTooLongError, TrainingError, UnknownCharacterError, VocabularyError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dinle.build.whisper_model import WhisperSpeechModel
    from dinle.manifest import Clip

START, END = "<|startoftranscript|>", "<|endoftext|>"
PREFIX = (START, "<|tr|>", "<|transcribe|>", "<|notimestamps|>")  # openai/whisper tokenizer.py: sot_sequence


@dataclass(frozen=True)
class WhisperTokens:
    """A Whisper tokenizer, with the special tokens looked up by their names: a cut vocabulary has other numbers.

    Attributes:
        tokenizer: the checkpoint's tokenizer.json.
        prefix: what every transcript begins with: start, language, task, no timestamps.
        end: the token that ends a transcript.
        banned: special and timestamp tokens that no transcript holds.
    """

    tokenizer: Tokenizer
    prefix: tuple[int, ...]
    end: int
    banned: tuple[int, ...]

    def encode(self, text: str) -> tuple[int, ...]:
        """A written text, in NFC and with the space that Whisper puts first, as tokens; the end token closes them.

        Raises:
            UnknownCharacterError: the vocabulary cannot write the text.
        """
        written = unicodedata.normalize("NFC", text).strip()
        if not written:
            return (self.end,)
        ids = self.tokenizer.encode(f" {written}", add_special_tokens=False).ids
        # a byte that is not in the vocabulary is dropped without a word, and a special's name is read as the special
        if (readable := self.decode(ids)) != written:
            raise UnknownCharacterError(
                f"the text {written!r} comes back from the tokenizer as {readable!r}: the vocabulary lacks some of its "
                "characters, or it holds the name of a special token"
            )
        return (*ids, self.end)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as text, without the special ones."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()


def read_tokens(folder: Path) -> WhisperTokens:
    """The tokens of a Whisper checkpoint folder.

    Raises:
        VocabularyError: tokenizer.json is missing, unreadable, or lacks Turkish or another special token.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise VocabularyError(f"{folder} has no tokenizer.json; save the model together with its fast tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise VocabularyError(f"{path} is not a tokenizer: {error}; copy or save the model again") from error
    ids = {name: index for name in (*PREFIX, END) if (index := tokenizer.token_to_id(name)) is not None}
    missing = [name for name in (*PREFIX, END) if name not in ids]
    if missing:
        raise VocabularyError(
            f"{path} lacks {', '.join(missing)}; expected a multilingual Whisper model (the English ones cannot write Turkish)"
        )
    banned = tuple(sorted(set(tokenizer.get_added_tokens_decoder()) - {ids[END]}))
    return WhisperTokens(tokenizer, tuple(ids[name] for name in PREFIX), ids[END], banned)


def label_transcripts(clips: Sequence[Clip], model: WhisperSpeechModel) -> list[LabelledClip]:
    """Make each clip's label: the tokens after the prefix, of the text as it is written, with the end token.

    Raises:
        UnknownCharacterError: a text that the vocabulary cannot write.
        LabelTooLongError: a label has more tokens than the decoder has positions.
        TrainingError: a clip is longer than the model takes.
    """
    return [_label(clip, model) for clip in clips]


def _label(clip: Clip, model: WhisperSpeechModel) -> LabelledClip:
    try:
        label = model.tokens.encode(clip.text)
    except UnknownCharacterError as error:
        raise UnknownCharacterError(f"{clip.audio}: {error}; correct or remove the clip's line") from None
    if len(label) > model.max_label:
        raise LabelTooLongError(
            f"{clip.audio}: the label has {len(label)} tokens, the decoder writes at most {model.max_label}: correct or "
            "remove the clip's line, or cut the clip"
        )
    if clip.duration_s > model.max_seconds:
        raise TrainingError(
            f"{clip.audio} lasts {clip.duration_s:.2f} s, the model takes at most {model.max_seconds:g} s: cut it, or "
            f"prepare the data with --max_duration_s {model.max_seconds:g}"
        )
    return LabelledClip(clip, unicodedata.normalize("NFC", clip.text).strip(), label, min_samples=1)
