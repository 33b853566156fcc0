"""The load generator, a process of its own: ``python -m dinle.loadtest.generator FOLDER URL TIMEOUT_S``.

Locust lets gevent replace the sockets and threads of its whole process, which is why the service, the recogniser and the
report live elsewhere. The folder holds the material (:mod:`dinle.loadtest.stages`). Each line on standard input is a stage;
it is answered by lines of JSON: ``{"passed_s": 1.5}`` now and then, at last ``{"rows": [...], "cpu_s": 0.7}``, where
``cpu_s`` is processor time of this process.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from locust.env import Environment  # before what uses sockets: see dinle.loadtest.users

from dinle.loadtest.stages import Material, Row, Stage, read_material
from dinle.loadtest.texts import TextCheck
from dinle.loadtest.users import MAKERS, Load

TICK_S = 0.5


def run_stage(url: str, stage: Stage, material: Material, check: TextCheck, timeout_s: float) -> list[Row]:
    """Run one stage with users of Locust's.

    Returns:
        A row for each request or live sentence, in the order in which they were due.

    Raises:
        RuntimeError: a user failed in a way that is not the service's doing.
    """
    load = Load(url, timeout_s, stage, material, check)
    environment = Environment(
        user_classes=[MAKERS[stage.kind](load)], host=url, stop_timeout=timeout_s, catch_exceptions=False
    )
    load.environment = environment
    rows, faults = list[Row](), list[BaseException]()
    events: Any = environment.events  # Locust's events and its runner's greenlets have no types
    events.request.add_listener(lambda context, **_: rows.append(context))
    events.user_error.add_listener(lambda exception, **_: faults.append(exception))
    runner: Any = environment.create_local_runner()
    users = stage.users if stage.kind in {"users", "live"} else 1
    # Live users are let in at once: each begins in its own time.
    runner.start(users, spawn_rate=stage.ramp_per_s if stage.kind == "users" else users)
    if stage.kind == "users":
        time.sleep(stage.seconds)
    else:
        runner.spawning_greenlet.join()
        runner.user_greenlets.join()
    runner.quit()
    if faults:
        raise RuntimeError(f"a user of stage {stage.name} failed") from faults[0]
    return sorted(rows, key=lambda row: float(row["start_s"]))


def tell(message: dict[str, Any]) -> None:
    """One line to the parent process."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(folder: str, url: str, timeout_s: str) -> None:
    """Run stages until standard input ends."""
    material, check = read_material(Path(folder)), TextCheck()
    for line in sys.stdin:
        over, began, used_s = threading.Event(), time.perf_counter(), time.process_time()
        ticking = threading.Thread(target=_tick, args=(over, began))
        ticking.start()
        try:
            rows = run_stage(url, Stage.from_json(line), material, check, float(timeout_s))
        finally:
            over.set()
            ticking.join()
        tell({"rows": rows, "cpu_s": round(time.process_time() - used_s, 3)})


def _tick(over: threading.Event, began: float) -> None:
    while not over.wait(TICK_S):
        tell({"passed_s": round(time.perf_counter() - began, 1)})


if __name__ == "__main__":
    main(*sys.argv[1:])
