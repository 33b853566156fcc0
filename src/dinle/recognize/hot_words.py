"""Words that are asked for: names and terms that a search should prefer where it hears something like them.

They are a second language model beside the letters' own: at the beginning of a word one of them comes with the probability
``share``, any of them as likely as another. Where the letters so far are likelier as a hot word than as any other, the text
earns the difference; where the path breaks off before a word is whole, that is given back. So a name that no model expects gains
much, a word that is expected anyway nothing, and each word of a long list less than one of a short list. A whole word keeps
what it earned whatever follows, so that ``Trendyol`` also helps ``Trendyol'dan``. Turkish softens the last p, ç, t or k of
many words before a vowel (``Zonguldak``, ``Zonguldağa``): with such a word its soft form is asked for as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dinle.errors import UsageError
from dinle.text import normalize_tr

if TYPE_CHECKING:
    from collections.abc import Iterable

SPACE = " "
# Final letters that soften before a vowel (Göksel and Kerslake, Turkish: A Comprehensive Grammar, 2005, section 2.1).
SOFT = {"p": "b", "ç": "c", "t": "d", "k": "ğ"}
VOWELS = "aeıioöuü"
MIN_SOFT_LETTERS = 4  # of one syllable most stay hard (saç, saçı), and short stems would match by chance
MAX_WORDS = 10_000
MAX_LETTERS = 100
MAX_LIST_LETTERS = 200_000  # of all words together: a trie of so many takes about 60 MB
OUTSIDE = -1  # inside a word that none of the trie begins like
DEFAULT_SHARE = 0.1  # of ten words one from the list: more, and long lists push their words in (docs/results.md)
# A place in the trie, by how many nats the path is likelier than without hot words, what is earned for good.
State = tuple[int, float, float]
START: State = (0, 0.0, 0.0)
LOST: State = (OUTSIDE, 0.0, 0.0)


@dataclass(slots=True)
class Node:
    """A place in the trie: how many words go on from here or end here, whether one ends, the place of each next letter."""

    words: int = 0
    whole: bool = False
    after: dict[str, int] = field(default_factory=dict)


class HotWords:
    """A trie of words, walked letter by letter from :data:`START`. Safe to use from several threads.

    Args:
        words: names, terms, or phrases of several words, in any case and with any signs.
        share: probability with which one of them comes at the beginning of a word, before anything is heard.

    Attributes:
        words: the forms that are looked for.

    Raises:
        UsageError: too many, too long together, one without letters or too long, a share that is no probability.
    """

    def __init__(self, words: Iterable[str], share: float = DEFAULT_SHARE) -> None:
        if not 0 < share < 1:
            raise UsageError(f"the share of hot words is {share:g}; expected more than 0 and less than 1, such as 0.1")
        asked = list(words)
        if len(asked) > MAX_WORDS:
            raise UsageError(f"{len(asked)} hot words are too many; expected at most {MAX_WORDS}")
        forms = [list_forms(word) for word in asked]
        letters = sum(len(first) for first, *_ in forms)
        if letters > MAX_LIST_LETTERS:
            raise UsageError(
                f"the hot words have {letters} letters together; expected at most {MAX_LIST_LETTERS}: "
                "ask for fewer or shorter ones"
            )
        self.words = tuple(dict.fromkeys(form for each in forms for form in each))
        self._log_share = math.log(share)
        self._nodes = [Node()]
        for word in self.words:
            self._add(word)

    def _add(self, word: str) -> None:
        node = self._nodes[0]
        node.words += 1
        for letter in word:
            if letter not in node.after:
                node.after[letter] = len(self._nodes)
                self._nodes.append(Node())
            node = self._nodes[node.after[letter]]
            node.words += 1
        node.whole = True

    def advance(self, state: State, letter: str, expected: float) -> tuple[float, State]:
        """What one more letter earns or gives back, in nats, and the state after it.

        Args:
            state: :data:`START` before the first word, or what an earlier call returned.
            letter: of the form ``tr``, or a space.
            expected: the letter's log-probability without hot words.
        """
        place, lead, kept = state
        if place == OUTSIDE:
            return 0.0, START if letter == SPACE else LOST
        node = self._nodes[place]
        child = node.after.get(letter)
        earned = self._earn(lead, kept)
        if child is None:
            return kept - earned, START if letter == SPACE else LOST
        following = self._nodes[child]
        lead += math.log(following.words / node.words) - expected
        now = self._earn(lead, kept)
        return now - earned, (child, lead, now if following.whole else kept)

    def end(self, state: State) -> float:
        """What the end of a text gives back, in nats: a word that began is not there as a whole."""
        _, lead, kept = state
        return kept - self._earn(lead, kept)

    def _earn(self, lead: float, kept: float) -> float:
        """What a path has earned: never less than a whole word on it keeps."""
        return max(kept, lead + self._log_share)


def list_forms(word: str) -> list[str]:
    """The letters of a word as they are looked for, and its soft form where it may have one.

    Raises:
        UsageError: no letters, or too many.
    """
    letters = normalize_tr(word)
    if not letters:
        raise UsageError(f"the hot word {word[:40]!r} holds no letter; expected a name or a term")
    if len(letters) > MAX_LETTERS:
        raise UsageError(f"the hot word {word[:40]!r} has {len(letters)} letters; expected at most {MAX_LETTERS}")
    last = letters.split()[-1]
    if len(last) < MIN_SOFT_LETTERS or last[-1] not in SOFT:
        return [letters]
    soft = SOFT[last[-1]] if last[-2:] != "nk" else "g"
    return [letters, *(letters[:-1] + soft + vowel for vowel in VOWELS)]
