"""What the load generator is told: the sound that it sends, and one stage of load after another. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from dinle.measure.load_client import LoadClip

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MATERIAL_FILE = "material.json"
PIECE_S = 0.1  # of sound in one message of a live stream, as browsers and phones send it
BYTES_PER_S = 2 * 16_000  # 16-bit samples at 16 kHz
PAUSE_S = 1.0  # between the sentences of a live script: twice the silence that ends a segment
BETWEEN_STREAMS_S = 0.37  # people do not begin together, nor in step with their pieces
ALL_BEGUN_S = 3.0  # ... but all within so long

Row = dict[str, Any]
Kind = Literal["once", "users", "arrivals", "live"]


@dataclass(frozen=True)
class LiveScript:
    """What a live user says.

    Attributes:
        id: what rows call it.
        sound: 16-bit little-endian samples at 16 kHz.
        places: where each sentence's first and last loud samples lie, in seconds from the start, ascending.
        finals: the text of every segment when the whole sound is cut and recognised offline (``None``: not known).
    """

    id: str
    sound: bytes
    places: tuple[tuple[float, float], ...]
    finals: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Stage:
    """One load.

    Attributes:
        name: of the phase in the report.
        kind: ``once``: every clip once, one after another; ``users``: a closed loop; ``arrivals``: requests that wait for
            nobody; ``live``: streams that speak in real time.
        sounds: ids of the clips, or of the live scripts.
        seconds: after so long nothing new is sent; what is under way is waited for.
        users: how many, of ``users`` and ``live``.
        ramp_per_s: users of a closed loop that begin each second.
        think_s: mean seconds between an answer and the user's next clip.
        arrivals_s: when each request is due, ascending.
        seed: of the order of clips.
    """

    name: str
    kind: Kind
    sounds: tuple[str, ...]
    seconds: float = 0.0
    users: int = 1
    ramp_per_s: float = 1.0
    think_s: float = 0.0
    arrivals_s: tuple[float, ...] = ()
    seed: int = 1

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Stage:
        """The stage that :meth:`to_json` wrote."""
        values: dict[str, Any] = json.loads(line)
        for name in ("sounds", "arrivals_s"):
            values[name] = tuple(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Material:
    """All sound of a load test, by id."""

    clips: Mapping[str, LoadClip]
    scripts: Mapping[str, LiveScript]


def write_material(folder: Path, clips: Sequence[LoadClip], scripts: Sequence[LiveScript]) -> None:
    """Write sound and expected texts into a folder, for another process."""
    described: dict[str, list[dict[str, Any]]] = {"clips": [], "scripts": []}
    for clip in clips:
        (folder / clip.id).write_bytes(clip.body)
        described["clips"].append({key: value for key, value in asdict(clip).items() if key != "body"})
    for script in scripts:
        (folder / script.id).write_bytes(script.sound)
        described["scripts"].append({key: value for key, value in asdict(script).items() if key != "sound"})
    (folder / MATERIAL_FILE).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")


def read_material(folder: Path) -> Material:
    """Read what :func:`write_material` wrote."""
    described = json.loads((folder / MATERIAL_FILE).read_text(encoding="utf-8"))
    clips = [LoadClip(body=(folder / one["id"]).read_bytes(), **one) for one in described["clips"]]
    scripts = [
        LiveScript(
            one["id"],
            (folder / one["id"]).read_bytes(),
            tuple((start_s, end_s) for start_s, end_s in one["places"]),
            None if one["finals"] is None else tuple(one["finals"]),
        )
        for one in described["scripts"]
    ]
    return Material({clip.id: clip for clip in clips}, {script.id: script for script in scripts})


def find_gap_s(users: int) -> float:
    """Seconds between the beginnings of live users."""
    return min(BETWEEN_STREAMS_S, ALL_BEGUN_S / max(1, users))
