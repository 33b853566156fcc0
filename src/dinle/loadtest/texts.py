"""Whether an answer is right: the text that was expected, or the first one that came for the same sound."""

from __future__ import annotations


class TextCheck:
    """Compares answers with what is expected of their sound; where nothing is, with the first answer.

    Args are given to :meth:`check`; the object remembers first answers from stage to stage.
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def check(self, key: str, text: str, expected: str | None) -> bool:
        """Whether the text is right.

        Args:
            key: names the sound.
            text: what came.
            expected: what should have come (``None``: what came first for this key).
        """
        return text == (self._first.setdefault(key, text) if expected is None else expected)

    def check_final(self, script: str, number: int, text: str, finals: tuple[str, ...] | None) -> bool:
        """Whether the final of a live segment is right; a segment that is not expected at all is wrong.

        Args:
            script: names the sound of the stream.
            number: of the segment, from 0.
            text: what came.
            finals: what should have come for each segment (``None``: what came first).
        """
        if finals is not None:
            return number < len(finals) and text == finals[number]
        return self.check(f"{script}#{number}", text, None)
