"""Finding the most that a service carries, with few steps. Both searches take it that what fails at a load fails at more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def find_most(steps: Sequence[float], passes: Callable[[float], bool]) -> float | None:
    """The greatest of ascending steps that passes, by halving; None where none does.

    Args:
        steps: what may be tried, ascending.
        passes: tries one.
    """
    low, high = 0, len(steps)  # steps before low pass, steps from high on fail
    while low < high:
        middle = (low + high) // 2
        if passes(steps[middle]):
            low = middle + 1
        else:
            high = middle
    return steps[low - 1] if low else None


def find_streams(most: int, passes: Callable[[int], bool]) -> int:
    """The greatest number that passes of 1, 2, 4, 8, ... and one number between the last that passed and the first that failed.

    Args:
        most: more are not tried.
        passes: tries a number.

    Returns:
        0 where one is too many.
    """
    passed, failed = 0, most + 1
    number = 1
    while number <= most:
        if not passes(number):
            failed = number
            break
        passed, number = number, 2 * number
    middle = (passed + failed) // 2
    if passed < middle < failed and passes(middle):
        passed = middle
    return passed
