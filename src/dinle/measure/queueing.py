"""How long requests wait for a worker: the queues M/M/c and M/M/c/K.

Requests arrive one by one at random (a Poisson process, rate λ a second), c workers serve them, one each, in times S with mean
1/μ. The offered load is a = λ S (in erlangs: workers that would be busy on average), the utilisation ρ = a / c. Times of
service are taken as exponential, which is more scattered than clips of a few seconds are: real waits are rather shorter.

Sources: A. K. Erlang, "Solution of some problems in the theory of probabilities of significance in automatic telephone
exchanges", 1917 (B and C formulas); D. Gross et al., "Fundamentals of Queueing Theory", 4th edition 2008, sections 2.3 (M/M/c)
and 2.5 (M/M/c/K); J. D. C. Little, "A proof for the queuing formula L = λW", Operations Research 9 (1961).
"""

from __future__ import annotations

import math

from dinle.errors import UsageError

BISECTIONS = 60  # halves [0, 1] down to 1e-18, below what a float tells apart


def compute_erlang_b(servers: int, offered: float) -> float:
    """Share of requests that find every server busy where nobody can wait (M/M/c/c).

    Args:
        servers: c, at least 1.
        offered: a = λ S, in erlangs; not negative.

    Raises:
        UsageError: arguments out of their range.
    """
    _check(servers, offered)
    blocked = 1.0
    for number in range(1, servers + 1):  # B(n) = a B(n-1) / (n + a B(n-1)), B(0) = 1: no factorials, no overflow
        blocked = offered * blocked / (number + offered * blocked)
    return blocked


def compute_erlang_c(servers: int, offered: float) -> float:
    """Share of requests that have to wait at all (M/M/c); 1 where as much arrives as can be done.

    Args:
        servers: c, at least 1.
        offered: a = λ S, in erlangs; not negative.

    Raises:
        UsageError: arguments out of their range.
    """
    if offered >= servers:
        _check(servers, offered)
        return 1.0
    blocked = compute_erlang_b(servers, offered)
    return blocked / (1 - offered / servers * (1 - blocked))


def compute_mean_wait_s(servers: int, service_s: float, utilisation: float) -> float:
    """Mean seconds of waiting over all requests (M/M/c): C S / (c (1 - ρ)); infinite from ρ = 1 on."""
    if utilisation >= 1:
        return math.inf
    return compute_erlang_c(servers, utilisation * servers) * service_s / (servers * (1 - utilisation))


def compute_wait_s(servers: int, service_s: float, utilisation: float, share: float = 0.95) -> float:
    """Seconds that a ``share`` of the requests wait at most (M/M/c): P(wait > t) = C exp(-c (1 - ρ) t / S).

    Returns:
        0 where so many do not wait at all; infinite from ρ = 1 on.
    """
    if utilisation >= 1:
        return math.inf
    waiting = compute_erlang_c(servers, utilisation * servers)
    if waiting <= 1 - share:
        return 0.0
    return math.log(waiting / (1 - share)) * service_s / (servers * (1 - utilisation))


def find_utilisation(servers: int, service_s: float, wait_s: float, share: float = 0.95) -> float:
    """The highest utilisation at which a ``share`` of the requests waits no longer than ``wait_s``; waits grow with it."""
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if compute_wait_s(servers, service_s, middle, share) <= wait_s:
            low = middle
        else:
            high = middle
    return low


def compute_bounded_queue(servers: int, places: int, offered: float) -> tuple[float, float]:
    """A queue with an end (M/M/c/K): who comes while every place is taken is refused.

    Args:
        servers: c, at least 1.
        places: K, those with a server included; at least c.
        offered: a = λ S, in erlangs; may exceed c.

    Returns:
        The share of requests that is refused, and the mean number of requests inside, waiting or served.

    Raises:
        UsageError: arguments out of their range.
    """
    _check(servers, offered)
    if places < servers:
        raise UsageError(f"{places} places for {servers} servers: there are at least as many places as servers")
    # Weights of the states 0..K: w(n) = w(n-1) a / min(n, c), kept below 1e300 by dividing on the way.
    weights = [1.0]
    for number in range(1, places + 1):
        weights.append(weights[-1] * offered / min(number, servers))
        if weights[-1] > 1e100:  # noqa: PLR2004 - any large number
            weights = [weight / weights[-1] for weight in weights]
    total = sum(weights)
    return weights[-1] / total, sum(number * weight for number, weight in enumerate(weights)) / total


def _check(servers: int, offered: float) -> None:
    if servers < 1 or not offered >= 0:
        raise UsageError(
            f"{servers} servers and {offered} erlangs; expected at least one server and a load that is not negative"
        )
