"""What a client may ask for besides the text: words to be expected, and the written form."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from dinle.errors import MissingExtraError, UsageError
from dinle.hot_word_lists import collect_hot_words, split_hot_words
from dinle.recognize.hot_words import MAX_LETTERS
from dinle.recognize.written import WrittenForm, cut_stretches, spell, write_stretch
from dinle.serve.errors import HotWordsRefusedError, WrittenUnavailableError
from dinle.serve.prompts import read_prompt

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from dinle.recognize.recognizer import Recognizer
    from dinle.recognize.transcript import Transcript, Word
    from dinle.serve.settings import Settings

# Of one request. A trie of 1000 words of 20 letters takes 0.05 s and 8 MB; of 1000 words of 100 letters 0.2 s and 32 MB.
MAX_HOT_WORDS = 1_000
MAX_CHARACTERS = 20_000
MAX_SERVER_WORDS = 5_000  # leaves room in dinle.recognize.hot_words.MAX_WORDS for a request's and a bundle's own


@dataclass(frozen=True)
class Options:
    """What a client asked for.

    Attributes:
        hot_words: names and terms to be expected, besides the server's.
        written: numbers as people write them.
    """

    hot_words: tuple[str, ...] = ()
    written: bool = False

    def prepare(self, recognizer: Recognizer) -> tuple[Recognizer, WrittenForm | None]:
        """The recogniser that expects these words, and the written form where it is asked for. May block for a second.

        Raises:
            HotWordsRefusedError: a word cannot be looked for.
            WrittenUnavailableError: damga is not installed.
        """
        form = load_written_form() if self.written else None
        return expect_words(recognizer, self.hot_words), form

    async def prepare_aside(self, recognizer: Recognizer) -> tuple[Recognizer, WrittenForm | None]:
        """The same in a thread of its own, for the event loop; at once where nothing is asked for."""
        if self == Options():
            return recognizer, None
        return await asyncio.to_thread(self.prepare, recognizer)


def read_hot_words(*lists: str, prompt: str = "") -> tuple[str, ...]:
    """The hot words of a request, each once.

    Args:
        lists: words with commas or line breaks between them.
        prompt: OpenAI's, see :func:`dinle.serve.prompts.read_prompt`; of its words those are taken for which there is room.

    Raises:
        HotWordsRefusedError: the lists have too many words, or too long ones.
    """
    words = tuple(dict.fromkeys(word for each in lists for word in split_hot_words(each)))
    check_sizes(words)
    every = tuple(dict.fromkeys((*words, *read_prompt(prompt))))[:MAX_HOT_WORDS]
    sizes = accumulate(map(len, every))
    return tuple(word for word, size in zip(every, sizes, strict=True) if size <= MAX_CHARACTERS)


def check_sizes(words: Sequence[str]) -> None:
    """See that the hot words of a request are not too many and not too long; what they are made of is not looked at.

    Raises:
        HotWordsRefusedError: they are.
    """
    if len(words) > MAX_HOT_WORDS:
        raise HotWordsRefusedError(f"hotwords has {len(words)} words; at most {MAX_HOT_WORDS} are accepted")
    longest = max(words, key=len, default="")
    if len(longest) > MAX_LETTERS:
        raise HotWordsRefusedError(
            f"the hot word {longest[:40]!r}... has {len(longest)} characters; expected at most {MAX_LETTERS}: part hot "
            "words by commas"
        )
    total = sum(map(len, words))
    if total > MAX_CHARACTERS:
        raise HotWordsRefusedError(f"hotwords has {total} characters; at most {MAX_CHARACTERS} are accepted")


def expect_words(recognizer: Recognizer, words: tuple[str, ...]) -> Recognizer:
    """The recogniser, expecting these words of a request besides; itself where there are none.

    Raises:
        HotWordsRefusedError: a word cannot be looked for.
    """
    if not words:
        return recognizer
    try:
        return recognizer.with_hot_words(words)
    except UsageError as error:
        raise HotWordsRefusedError(str(error)) from error


def read_server_words(settings: Settings) -> tuple[str, ...]:
    """The hot words of ``ASR_HOTWORDS`` and ``ASR_HOTWORDS_FILE``, together.

    Raises:
        UsageError: too many, a file that cannot be read, a word that cannot be looked for.
    """
    path = Path(settings.hotwords_file) if settings.hotwords_file is not None else None
    words = collect_hot_words(
        settings.hotwords, path, text_name="ASR_HOTWORDS", path_name="the file of ASR_HOTWORDS_FILE"
    )
    if len(words) > MAX_SERVER_WORDS:
        raise UsageError(
            f"ASR_HOTWORDS and ASR_HOTWORDS_FILE have {len(words)} words together; at most {MAX_SERVER_WORDS} are accepted"
        )
    return words


@cache
def _make_written_form() -> WrittenForm:
    return WrittenForm()


def load_written_form() -> WrittenForm:
    """The written form that all requests share, loaded at the first of them, which takes up to a second.

    Raises:
        WrittenUnavailableError: damga is not installed.
    """
    try:
        return _make_written_form()
    except MissingExtraError as error:
        raise WrittenUnavailableError(str(error)) from error


def write_steps(form: WrittenForm, transcript: Transcript) -> Generator[None, None, Transcript]:
    """The transcript in written form, the recognised text in ``raw_text``; a step is a stretch of at most 100 words."""
    words: list[Word] = []
    for stretch in cut_stretches(transcript.words, form.write_text):
        yield None
        words += write_stretch(stretch, form.write_text)
    return replace(transcript, text=spell(words), words=tuple(words), raw_text=transcript.text)
