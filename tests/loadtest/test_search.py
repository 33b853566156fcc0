from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dinle.loadtest.search import find_most, find_streams


@given(st.lists(st.integers(0, 100), unique=True).map(sorted), st.integers(-1, 101))
def test_the_most_is_found_in_few_tries(steps: list[int], limit: int) -> None:
    tried: list[float] = []

    def passes(step: float) -> bool:
        tried.append(step)
        return step <= limit

    assert find_most(steps, passes) == max((step for step in steps if step <= limit), default=None)
    assert len(tried) <= len(steps).bit_length()
    assert len(set(tried)) == len(tried)


@given(st.integers(0, 200), st.integers(0, 100))
def test_streams_are_never_too_many_and_at_least_two_thirds(limit: int, most: int) -> None:
    tried: list[int] = []

    def passes(streams: int) -> bool:
        tried.append(streams)
        return streams <= limit

    found = find_streams(most, passes)
    assert found <= limit
    assert max(tried, default=0) <= most
    assert 3 * found >= 2 * min(limit, most) - 2  # a step between two powers of two is tried, no more
    assert len(set(tried)) == len(tried)
    assert found == 0 or found in tried


def test_the_steps_of_streams_double_and_one_lies_between() -> None:
    tried: list[int] = []

    def passes(streams: int) -> bool:
        tried.append(streams)
        return streams <= 6

    assert find_streams(64, passes) == 6
    assert tried == [1, 2, 4, 8, 6]
