"""A service under test: the phases that it goes through, and the search for the most that it carries."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dinle.loadtest.config import LoadTestConfig
from dinle.loadtest.driver import Generator
from dinle.loadtest.figures import choose_counted, is_carried, name_warm_up
from dinle.loadtest.search import find_most, find_streams
from dinle.loadtest.stages import LiveScript, Row, Stage, find_gap_s
from dinle.loadtest.watch import Watch
from dinle.measure.load_client import LoadClip
from dinle.measure.service_figures import is_right
from dinle.progress import progress
from dinle.serve.process import ServiceFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence


LOADS = tuple(share / 10 for share in range(1, 13))  # of the capacity that single requests let expect
STEP_REQUESTS, STEP_LEAST_S, STEP_MOST_S = 60, 6.0, 12.0  # of a step that searches for the users of one length
FEW_SENTENCES = 20  # of fewer, 95 % means all: one that is late for another reason would end the search


@dataclass(frozen=True)
class Sounds:
    """What is sent: the mix, clips by their length, live scripts."""

    mix: list[LoadClip]
    by_length: dict[float, list[LoadClip]]
    scripts: list[LiveScript]

    def list_clips(self) -> list[LoadClip]:
        """All clips."""
        return [*self.mix, *(clip for clips in self.by_length.values() for clip in clips)]


@dataclass
class Session:
    """A service under test, and what was seen of it.

    Attributes:
        label: of the model, in rows.
        generator: makes the load.
        watch: samples the service.
        sounds: what is sent.
        config: what was asked for.
        cores: of the service's machine.
        rows: every request.
        phases: see :mod:`dinle.loadtest.figures`.
    """

    label: str
    generator: Generator
    watch: Watch
    sounds: Sounds
    config: LoadTestConfig
    cores: int
    rows: list[Row] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)

    def run(self, stage: Stage, kind: str, **facts: float | None) -> list[Row]:
        """Run a stage under the watch; its rows that count."""
        began = time.perf_counter()
        with progress(f"{self.label}: {stage.name}", total=stage.seconds or None) as bar, self.watch.phase(stage.name):
            result = self.generator.run(stage, lambda passed_s: bar.update(completed=min(passed_s, stage.seconds)))
        phase = {
            "model": self.label, "name": stage.name, "kind": kind, "seconds": stage.seconds, "from_s": 0.0,
            "wall_s": round(time.perf_counter() - began, 3), "generator_cpu_s": result.cpu_s, "users": stage.users,
            "rate_per_s": None, "length_s": None, **facts,
        }  # fmt: skip
        self.phases.append(phase)
        self.rows += [{"model": self.label, "phase": stage.name, **row} for row in result.rows]
        return choose_counted(phase, result.rows)


def put_under_load(session: Session) -> None:
    """Every phase, one after another; their rows are in the session.

    Raises:
        ServiceFailedError: a clip is not transcribed though nothing else is asked of the service.
    """
    config, sounds = session.config, session.sounds
    alone: dict[float | None, list[Row]] = {None: warm_up(session, None, sounds.mix)}
    for length_s, clips in sounds.by_length.items():
        alone[length_s] = warm_up(session, length_s, clips)
    if config.users:
        stage = Stage(
            "closed loop", "users", name_sounds(sounds.mix), config.seconds, config.users, config.ramp, config.think_s,
            seed=config.seed,
        )  # fmt: skip
        session.run(stage, "closed", from_s=config.users / config.ramp)
    for share in config.loads:
        rate_per_s = share * estimate_capacity(alone[None], session.cores)
        run_arrivals(
            session, f"open {share:g}", sounds.mix, rate_per_s=rate_per_s, seconds=config.step_seconds, kind="open"
        )
    for length_s, clips in sounds.by_length.items():
        if is_carried(alone[length_s], config.target_s):
            capacity = estimate_capacity(alone[length_s], session.cores)
            find_most(LOADS, partial(try_length, session, length_s, clips, capacity))
    if config.max_streams:
        find_streams(config.max_streams, partial(try_streams, session))


def name_sounds(sounds: Sequence[LoadClip | LiveScript]) -> tuple[str, ...]:
    """Their ids."""
    return tuple(sound.id for sound in sounds)


def warm_up(session: Session, length_s: float | None, clips: list[LoadClip]) -> list[Row]:
    """Every clip once: warms the service up, says what a single request takes, and finds out early what is refused.

    Raises:
        ServiceFailedError: a clip is not transcribed.
    """
    rows = session.run(Stage(name_warm_up(length_s), "once", name_sounds(clips)), "warm-up", length_s=length_s)
    bad = [row for row in rows if not is_right(row)]
    if bad or len(rows) != len(clips):
        first = bad[0] if bad else {"clip": "none", "status": None, "error": "no row"}
        raise ServiceFailedError(
            f"{len(bad)} of {len(rows)} clips were not transcribed though nothing else was asked of the service; the first was "
            f"{first['clip']}: {first['error'] or 'status'} {first['status'] or ''}"
        )
    return rows


def estimate_capacity(alone: Sequence[Row], cores: int) -> float:
    """Requests a second if every core worked as quickly as one that works alone."""
    busy_s = sum(float(row["seconds"]) for row in alone)
    return cores * len(alone) / max(1e-9, busy_s)


def run_arrivals(
    session: Session, name: str, clips: list[LoadClip], *, rate_per_s: float, seconds: float, kind: str,
    length_s: float | None = None,
) -> list[Row]:  # fmt: skip
    """Arrivals at a rate, for some seconds; the rate is rounded to a whole number of requests."""
    arrivals_s = draw_arrivals(max(1, round(rate_per_s * seconds)), seconds, session.config.seed)
    stage = Stage(name, "arrivals", name_sounds(clips), seconds, arrivals_s=arrivals_s, seed=session.config.seed)
    return session.run(stage, kind, rate_per_s=len(arrivals_s) / seconds, length_s=length_s)


def draw_arrivals(count: int, seconds: float, seed: int) -> tuple[float, ...]:
    """Times of a Poisson process of which it is known that so many arrive in so many seconds: uniform points, sorted.

    (Ross, Introduction to Probability Models, "conditional distribution of the arrival times".) The offered rate is then exact,
    and a step of few requests depends less on luck.
    """
    return tuple(np.sort(np.random.default_rng(seed).uniform(0, seconds, count)).round(6).tolist())


def try_length(session: Session, length_s: float, clips: list[LoadClip], capacity: float, share: float) -> bool:
    """Whether the service carries clips of one length at a share of the capacity."""
    rate_per_s = share * capacity
    seconds = min(max(STEP_REQUESTS / rate_per_s, STEP_LEAST_S), STEP_MOST_S)
    name = f"{length_s:g} s at {share:g}"
    rows = run_arrivals(session, name, clips, rate_per_s=rate_per_s, seconds=seconds, kind="length", length_s=length_s)
    return is_carried(rows, session.config.target_s)


def try_streams(session: Session, streams: int) -> bool:
    """Whether the service carries so many live streams. Of few sentences none may be late: such a step may be tried again."""
    for name in (f"live {streams}", f"live {streams} again"):
        stage = Stage(name, "live", name_sounds(session.sounds.scripts), session.config.live_seconds, streams)
        rows = session.run(stage, "live", from_s=streams * find_gap_s(streams))
        if is_carried(rows, session.config.target_s):
            return True
        if len(rows) >= FEW_SENTENCES:
            break
    return False
