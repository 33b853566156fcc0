"""Log-probabilities -> words by prefix beam search: the text that the model and a scorer of texts like best together.

Hannun et al., First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs (2014),
algorithm 1: all alignments of a text count, kept apart by whether they end in a blank. Times and confidence are those of the
likeliest alignment of the text that was found. :class:`BeamDecoder` does it piece by piece, so that a recording of any length
needs the memory of its longest stretch without a pause, or of :data:`LONGEST_S`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from dinle.errors import UsageError
from dinle.recognize.ctc_alignment import align_ctc, count_frames
from dinle.recognize.transcript import Word
from dinle.recognize.vocabulary import SPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dinle.recognize.text_scorer import State, TextScorer
    from dinle.recognize.vocabulary import Vocabulary

NEVER = -math.inf
LONGEST_S = 20.0  # of speech without a pause, after which all but the last words are settled
MOST_LIKED = 4.0  # nats: more than any scorer gives for one letter
OPEN_WORDS = 3  # these may still change


@dataclass(frozen=True)
class CtcBeamRules:
    """How wide the search is.

    Attributes:
        beam_size: texts that are followed side by side.
        margin: nats by which a text may fall behind the best before it is dropped.
        min_log_prob: less likely tokens of a frame are passed over (nats).
        max_tokens: at most so many of a frame are tried.
        sure_blank: log-probability from which on a frame is taken for a blank and nothing else.
        pause_s: seconds of such frames after which what was heard is settled: a word ends there.

    Raises:
        UsageError: a width below 1, or a margin that is not positive.
    """

    beam_size: int = 16
    margin: float = 8.0
    min_log_prob: float = -7.0
    max_tokens: int = 6
    sure_blank: float = -0.002
    pause_s: float = 0.6

    def __post_init__(self) -> None:
        if self.beam_size < 1 or self.max_tokens < 1 or not self.margin > 0:
            raise UsageError(
                f"beam_size is {self.beam_size}, max_tokens {self.max_tokens} and margin {self.margin:g}; expected 1 or more, "
                "1 or more, and more than 0"
            )


class Prefix:
    """A text of the search.

    Attributes:
        parent: the text without its last token (``None``: what came before is settled).
        last: its last token (-1: none).
        score: what the scorer gave it so far, in nats.
        state: the scorer's.
        children: the texts that are a token longer, by that token.
        blank, token: log-probability of all its alignments that end in a blank, in the last token.
        frame: the frame that these hold for.
    """

    __slots__ = ("blank", "children", "frame", "last", "parent", "score", "state", "token")

    def __init__(self, parent: Prefix | None, last: int, score: float, state: State) -> None:
        self.parent, self.last, self.score, self.state = parent, last, score, state
        self.children: dict[int, Prefix] = {}
        self.blank = self.token = NEVER
        self.frame = -1

    @property
    def total(self) -> float:
        """What texts are compared by."""
        return add_logs(self.blank, self.token) + self.score

    def spell(self) -> list[int]:
        """Its tokens, from the last that was settled on."""
        found: list[int] = []
        place = self
        while place.parent is not None:
            found.append(place.last)
            place = place.parent
        return found[::-1]


def add_logs(a: float, b: float) -> float:
    """log(exp(a) + exp(b)); beyond 30 nats of difference the sum is the greater one to the last bit that matters."""
    if a < b:
        a, b = b, a
    if a - b > 30 or b == NEVER:  # noqa: PLR2004 - see above
        return a
    return a + math.log1p(math.exp(b - a))


class BeamDecoder:
    """Prefix beam search over consecutive pieces of one recording: push log-probabilities, then finish.

    Args:
        vocabulary: the tokens; ``" "`` parts words.
        scorer: has a say in which texts are followed and chosen.
        rules: how wide the search is.
        frame_shift_s: seconds from one frame to the next.
        frame_offset_s: time at which the first frame starts.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        scorer: TextScorer,
        rules: CtcBeamRules,
        *,
        frame_shift_s: float,
        frame_offset_s: float = 0.0,
    ) -> None:
        self._vocabulary, self._scorer, self._rules = vocabulary, scorer, rules
        self._space = vocabulary.tokens.index(SPACE) if SPACE in vocabulary.tokens else -1
        self._hidden = sorted(vocabulary.hidden)
        self._silent = sorted({*vocabulary.hidden, self._space} - {-1})
        self._shift_s, self._offset_s = frame_shift_s, frame_offset_s
        self._pause = max(1, round(rules.pause_s / frame_shift_s))
        self._longest = round(LONGEST_S / frame_shift_s)
        self._restart()

    def _restart(self) -> None:
        self._first = self._frame = 0  # of the frames that are not settled; of the next one
        self._held: list[NDArray[np.float32]] = []
        self._quiet = 0
        self._begin(self._scorer.start)

    def _begin(self, state: State) -> None:
        """Nothing is open."""
        root = Prefix(None, -1, 0.0, state)
        root.blank = 0.0
        self._live = [root]

    def push(self, log_probs: NDArray[np.float32]) -> list[Word]:
        """Decode the next frames, ``log_probs`` of shape (T, V), and return the words that became certain in them."""
        words: list[Word] = []
        log_probs = np.where(np.isnan(log_probs), np.float32(-np.inf), log_probs)  # a copy: frames are held
        blanks = np.logaddexp.reduce(log_probs[:, self._hidden], axis=1)  # no special is written either
        pairs = self._find_tokens(log_probs, blanks)
        for blank, row, tokens in zip(blanks.tolist(), log_probs, pairs, strict=True):
            self._held.append(row)
            self._frame += 1
            if blank > self._rules.sure_blank:
                self._rest()
                if self._quiet == self._pause or (self._quiet > self._pause and len(self._held) > self._pause):
                    words += self._settle()
                continue
            self._quiet = 0
            self._step(blank, tokens)
            if len(self._held) >= self._longest:
                words += self._settle(OPEN_WORDS)
        return words

    def finish(self) -> list[Word]:
        """The words that were still open; the decoder is then ready for another recording's frames."""
        words = self._settle()
        self._restart()
        return words

    def _rest(self) -> None:
        """A frame of silence: all alignments end in a blank now."""
        self._quiet += 1
        if self._quiet == 1:
            for one in self._live:
                one.blank, one.token = add_logs(one.blank, one.token), NEVER

    def _step(self, blank: float, pairs: list[tuple[int, float]]) -> None:
        """One frame: every live text stays as it is or grows by a token, and the best stay alive."""
        before = [(one, one.blank, one.token, add_logs(one.blank, one.token)) for one in self._live]
        reached: list[Prefix] = []
        for one, _, _, total in before:
            self._reach(one, reached)
            one.blank = total + blank
        least = max(total + one.score for one, _, _, total in before) + blank - self._rules.margin - MOST_LIKED
        for one, ended, open_, total in before:
            for token, log_prob in pairs:
                if total + one.score + log_prob < least:
                    break  # it, and the less likely ones after it, would fall behind whatever the scorer says
                if token == self._space and one.last in (self._space, -1):  # no second space, none at the beginning
                    one.token = add_logs(one.token, total + log_prob)
                    continue
                if token == one.last:
                    one.token = add_logs(one.token, open_ + log_prob)
                    if ended == NEVER:
                        continue
                child = one.children.get(token) or self._extend(one, token)
                self._reach(child, reached)
                child.token = add_logs(child.token, (ended if token == one.last else total) + log_prob)
        self._live = self._choose(reached)
        if not self._live:  # a frame that no text can go on with says nothing
            for one, one.blank, one.token, _ in before:
                self._live.append(one)

    def _find_tokens(
        self, log_probs: NDArray[np.float32], blanks: NDArray[np.float32]
    ) -> list[list[tuple[int, float]]]:
        """For each frame that is not surely blank the tokens worth trying and their log-probabilities, the likeliest first.

        A hidden token is never among them.
        """
        likely = (log_probs > self._rules.min_log_prob) & (blanks <= self._rules.sure_blank)[:, np.newaxis]
        likely[:, self._hidden] = False
        frames, tokens = np.nonzero(likely)
        found: list[list[tuple[int, float]]] = [[] for _ in log_probs]
        for frame, token, log_prob in zip(
            frames.tolist(), tokens.tolist(), log_probs[frames, tokens].tolist(), strict=True
        ):
            found[frame].append((token, log_prob))
        return [sorted(pairs, key=itemgetter(1), reverse=True)[: self._rules.max_tokens] for pairs in found]

    def _reach(self, one: Prefix, reached: list[Prefix]) -> None:
        """Note that a text is alive in this frame."""
        if one.frame != self._frame:
            one.frame = self._frame
            one.blank = one.token = NEVER
            reached.append(one)

    def _extend(self, one: Prefix, token: int) -> Prefix:
        score, state = self._scorer.advance(one.state, self._vocabulary.tokens[token])
        child = one.children[token] = Prefix(one, token, one.score + score, state)
        return child

    def _choose(self, reached: list[Prefix]) -> list[Prefix]:
        """The best texts, the best first; none where all are impossible."""
        totals = [(one.total, place) for place, one in enumerate(reached)]
        ranked = sorted((each for each in totals if each[0] > NEVER), reverse=True)
        least = ranked[0][0] - self._rules.margin if ranked else NEVER
        return [reached[place] for total, place in ranked[: self._rules.beam_size] if total >= least]

    def _best(self) -> Prefix:
        """The best text if it ended here."""
        return max(self._live, key=lambda one: one.total + self._scorer.end(one.state))

    def _settle(self, open_words: int = 0) -> list[Word]:
        """The words of the best text, or all but the last few; what is alive from then on begins with them."""
        best = self._best()
        tokens = best.spell()
        count = self._count_settled(tokens, open_words)
        log_probs = np.stack(self._held) if self._held else np.zeros((0, self._vocabulary.size), dtype=np.float32)
        # a space too many is silence, as a special is
        log_probs[:, self._vocabulary.blank] = log_probs[:, self._silent].max(axis=1)
        spans = align_ctc(log_probs, tokens, self._vocabulary.blank)
        words = list(self._time_words(tokens[:count], spans, log_probs))
        # the last space that is settled stays: with its frame every text that is kept has room
        done = int(spans[count - 1][0]) if count < len(tokens) else len(self._held)
        if open_words:
            self._keep_after(best, len(tokens) - count, len(self._held) - done)
        else:
            self._begin(
                self._scorer.advance(best.state, SPACE)[1] if tokens and tokens[-1] != self._space else best.state
            )
        self._held, self._first = self._held[done:], self._first + done
        return words

    def _count_settled(self, tokens: list[int], open_words: int) -> int:
        """How many tokens to settle: up to a space, so that so many words stay open, or fewer; all if there is no space."""
        spaces = [place for place, token in enumerate(tokens[:-1]) if token == self._space]
        return spaces[-min(open_words, len(spaces))] + 1 if open_words and spaces else len(tokens)

    def _keep_after(self, best: Prefix, depth: int, frames: int) -> None:
        """Keep the texts that begin like the best one without its last ``depth`` tokens, and forget what they begin with.

        What else they hold must fit into the ``frames`` that are left, and a blank: then it fits however they grow.
        """
        root = best
        for _ in range(depth):
            assert root.parent is not None  # noqa: S101 - depth is less than the text's length
            root = root.parent
        root.parent = None
        self._live = [
            one for one in self._live if one is root or (_reaches(one, root) and count_frames(one.spell()) < frames)
        ]

    def _time_words(
        self, tokens: list[int], spans: NDArray[np.int64], log_probs: NDArray[np.float32]
    ) -> Iterator[Word]:
        """The words among tokens, with their times; as :class:`dinle.recognize.ctc.GreedyDecoder` counts them."""
        for is_space, group in groupby(range(len(tokens)), key=lambda place: tokens[place] == self._space):
            places = list(group)
            if is_space:
                continue
            heard = np.concatenate([log_probs[spans[place][0] : spans[place][1], tokens[place]] for place in places])
            start, end = self._first + int(spans[places[0]][0]), self._first + int(spans[places[-1]][1])
            yield Word(
                text="".join(self._vocabulary.tokens[tokens[place]] for place in places),
                start_s=max(0.0, self._offset_s + start * self._shift_s),
                end_s=max(0.0, self._offset_s + end * self._shift_s),
                confidence=float(np.exp(min(0.0, float(heard.mean())))),
            )


def _reaches(one: Prefix | None, root: Prefix) -> bool:
    while one is not None and one is not root:
        one = one.parent
    return one is root
