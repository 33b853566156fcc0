"""Spoken words -> written form: ``yüz elli lira`` becomes ``150 TL``, with the times of the words it was said in.

What is written how is damga's decision (https://github.com/mihu-ai/damga, Apache-2.0, grammars as transducers, offline). It
takes a text and gives a text; which words a number came from is found here:

1. :func:`pair_tokens`: spoken words and written tokens that are the same pair up, what lies between is a changed stretch.
2. :func:`part_piece`: a stretch is parted where its beginning or its end, written alone, gives the beginning or the end of what
   is written. Where that fails, a few words around it are taken in: ``dokuz otuzda`` is a time only after ``saat``.

A written piece becomes one :class:`Word`. It may hold a space: ``yüz lira elli kuruş`` is written ``100,50 TL``, of which no part
belongs to a part of the sound.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from dinle.errors import MissingExtraError
from dinle.recognize.transcript import Word
from dinle.text import APOSTROPHES, lower_tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dinle.recognize.transcript import Transcript

# damga's time and memory grow faster than its text: 43 ms for 100 words, but 104 ms for each 100 of 3000, and 400 MB.
MAX_WORDS = 100
CONTEXT_WORDS = 3  # words taken in on each side to understand a stretch; what needs more stays in one piece
SENTENCE_ENDS = (".", "?", "!", "…")
_ONE_APOSTROPHE = str.maketrans(dict.fromkeys(APOSTROPHES, "'"))


@dataclass(frozen=True)
class Piece:
    """Spoken words and the tokens that stand for them in the written text."""

    words: tuple[Word, ...]
    tokens: tuple[str, ...]


class WrittenForm:
    """Writes numbers, dates, times, money, percent and telephone numbers as people write them.

    Loading takes under a second and is done once; an instance may be used by many threads.

    Raises:
        MissingExtraError: damga is not installed.
    """

    def __init__(self) -> None:
        try:
            damga = importlib.import_module("damga")
        except ModuleNotFoundError as error:
            raise MissingExtraError("itn", error.name or "damga") from error
        # The compiled grammars: the same everywhere, whatever else is installed, and no files in the user's cache.
        self._normalizer = damga.InverseNormalizer(backend="native")

    def write_text(self, text: str) -> str:
        """The written form of a text, in single spaces; the text itself where the grammars have no way through it."""
        result = self._normalizer.normalize_with_details(text)
        # Without a way through, damga gives the text back in lower case.
        return " ".join((text if result.notes else result.text).split())

    def write_words(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """The words in written form, in order.

        Words that stay as they are are the same objects. A changed word begins with the first spoken word it stands for,
        ends with the last, and has the confidence of the least certain: a number is wrong when one of its words is. Every
        spoken word is in exactly one written word.
        """
        stretches = cut_stretches(words, self.write_text)
        return tuple(chain.from_iterable(write_stretch(stretch, self.write_text) for stretch in stretches))

    def write_transcript(self, transcript: Transcript) -> Transcript:
        """The transcript in written form, the recognised text in ``raw_text``."""
        words = self.write_words(transcript.words)
        return replace(transcript, text=spell(words), words=words, raw_text=transcript.text)


def cut_stretches(words: Sequence[Word], write: Callable[[str], str]) -> Iterator[Sequence[Word]]:
    """Part words into stretches of at most :data:`MAX_WORDS`, in the second half of each.

    After a sentence or else at the longest pause, but if there is one between two words that ``write`` leaves alone: a pause may
    be within a number.
    """
    start = 0
    while len(words) - start > MAX_WORDS:
        places = range(start + MAX_WORDS // 2 + 1, start + MAX_WORDS + 1)
        best = sorted(places, key=lambda place: rate_cut(words[place - 1], words[place]), reverse=True)
        pairs = ((place, spell(words[place - 1 : place + 1])) for place in best)
        stop = next((place for place, pair in pairs if write(pair) == pair), best[0])
        yield words[start:stop]
        start = stop
    yield words[start:]


def rate_cut(before: Word, after: Word) -> tuple[bool, float]:
    """How good a place is to cut between two words: after a sentence is best, then the longest pause in seconds."""
    return before.text.endswith(SENTENCE_ENDS), after.start_s - before.end_s


def write_stretch(words: Sequence[Word], write: Callable[[str], str]) -> tuple[Word, ...]:
    """The written words of a stretch that ``write`` takes whole; the spoken words where nothing is written."""
    tokens = write(spell(words)).split() if words else []
    if not tokens or tokens == [word.text for word in words]:
        return tuple(words)
    pieces: list[Piece] = []
    waiting = pair_tokens(words, tokens)
    while waiting:
        piece = waiting.pop(0)
        if is_changed(piece):
            settle_piece(pieces, piece, waiting, write)
        else:
            pieces.append(piece)
    return tuple(chain.from_iterable(write_piece(piece) for piece in pieces))


def pair_tokens(words: Sequence[Word], tokens: Sequence[str]) -> list[Piece]:
    """Spoken words and the written tokens that equal them but for case, and changed stretches whole.

    Both must hold something. Words that nothing is written for, and tokens that nobody said, go with the piece before them.
    """
    matcher = difflib.SequenceMatcher(
        None, [fold_token(word.text) for word in words], [fold_token(token) for token in tokens], autojunk=False
    )
    pieces: list[Piece] = []
    for kind, start, stop, first, last in matcher.get_opcodes():
        if kind == "equal":
            pairs = zip(words[start:stop], tokens[first:last], strict=True)
            pieces += [Piece((word,), (token,)) for word, token in pairs]
        else:
            pieces.append(Piece(tuple(words[start:stop]), tuple(tokens[first:last])))
    return fill_pieces(pieces)


def fill_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """Join pieces that lack words or tokens to the piece before them, the first to the one after it."""
    filled: list[Piece] = []
    for piece in pieces:
        if filled and not (has_both(piece) and has_both(filled[-1])):
            filled[-1] = join_pieces([filled[-1], piece])
        else:
            filled.append(piece)
    return filled


def settle_piece(before: list[Piece], piece: Piece, after: list[Piece], write: Callable[[str], str]) -> None:
    """Part a changed piece and add it to ``before``, together with the words around it that it is understood by.

    What ``write`` does not give back, even with :data:`CONTEXT_WORDS` on each side, stays whole.
    """
    for context in range(CONTEXT_WORDS + 1):
        kept = max(0, len(before) - context)
        window = join_pieces([*before[kept:], piece, *after[:context]])
        if fold_tokens(write(spell(window.words)).split()) == fold_tokens(window.tokens):
            before[kept:] = part_piece(window, write)
            del after[:context]
            return
    before.append(piece)


def part_piece(piece: Piece, write: Callable[[str], str]) -> list[Piece]:
    """The smallest pieces that a piece falls into.

    A cut is where the words up to it, written alone, give the tokens up to it, or the words from it on the tokens from it on.
    """
    cuts: dict[int, int] = {}  # tokens before a cut -> words before it
    if len(piece.tokens) > 1:
        for place in range(1, len(piece.words)):
            count = find_cut(piece, place, write)
            # A word that adds nothing to what is written belongs to what stands before it: the last place counts.
            if count >= max(cuts, default=1):
                cuts[count] = place
    counts, places = [0, *cuts, len(piece.tokens)], [0, *cuts.values(), len(piece.words)]
    return [
        Piece(piece.words[start:stop], piece.tokens[first:last])
        for start, stop, first, last in zip(places, places[1:], counts, counts[1:], strict=False)
    ]


def find_cut(piece: Piece, place: int, write: Callable[[str], str]) -> int:
    """How many tokens stand before a cut after ``place`` words; 0: there is no cut."""
    tokens = fold_tokens(piece.tokens)
    head = fold_tokens(write(spell(piece.words[:place])).split())
    if len(head) < len(tokens) and head == tokens[: len(head)]:
        return len(head)
    tail = fold_tokens(write(spell(piece.words[place:])).split())
    if 0 < len(tail) < len(tokens) and tail == tokens[-len(tail) :]:
        return len(tokens) - len(tail)
    return 0


def write_piece(piece: Piece) -> tuple[Word, ...]:
    """The written word of a piece: the spoken word itself where it says the same, all spoken words where it would lose some.

    damga 1.0.5 takes ``ev AB ev AB`` for somebody who spells, and writes ``Ee``. Letters alone stand for more words only as an
    abbreviation in capitals, as ``TRT`` for ``te re te``.
    """
    first, last, text = piece.words[0], piece.words[-1], " ".join(piece.tokens)
    if first is last and text == first.text:
        return (first,)
    letters = text.replace(" ", "")
    if len(piece.tokens) < len(piece.words) and letters.isalpha() and not letters.isupper():
        return piece.words
    return (Word(text, first.start_s, last.end_s, min(word.confidence for word in piece.words)),)


def is_changed(piece: Piece) -> bool:
    """Whether a piece is more than one word that is written as it was said, but for case."""
    return fold_tokens(piece.tokens) != [fold_token(word.text) for word in piece.words]


def has_both(piece: Piece) -> bool:
    """Whether a piece has words and tokens."""
    return bool(piece.words and piece.tokens)


def join_pieces(pieces: Sequence[Piece]) -> Piece:
    """Pieces that follow each other as one."""
    words = tuple(chain.from_iterable(piece.words for piece in pieces))
    return Piece(words, tuple(chain.from_iterable(piece.tokens for piece in pieces)))


def fold_token(token: str) -> str:
    """A token as it is compared: lower case, one kind of apostrophe."""
    return lower_tr(token).translate(_ONE_APOSTROPHE)


def fold_tokens(tokens: Iterable[str]) -> list[str]:
    """:func:`fold_token` of each."""
    return [fold_token(token) for token in tokens]


def spell(words: Iterable[Word]) -> str:
    """The text of words, in single spaces."""
    return " ".join(word.text for word in words)
