"""Running counts of the data while it is prepared: what a report needs, without the clips."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dinle.manifest import Clip

EXAMPLES = 10  # names kept for each finding; dropped.jsonl has all of the dropped
SPLIT_ORDER = ("train", "validation", "test")


class Sharing:
    """Which splits hold the same thing, by a hash of it: 16 bytes for each distinct thing."""

    def __init__(self) -> None:
        self._splits: dict[bytes, tuple[str, ...]] = {}
        self.repeats = 0  # within one split
        self.examples: list[str] = []

    def add(self, content: bytes, split: str, example: str) -> None:
        """Note that ``split`` holds ``content``."""
        key = hashlib.blake2b(content, digest_size=16).digest()
        known = self._splits.get(key, ())
        if split in known:
            self.repeats += 1
            return
        self._splits[key] = (*known, split)
        if known and len(self.examples) < EXAMPLES:
            self.examples.append(example)

    def count_pairs(self) -> dict[str, int]:
        """Distinct things that two splits share, by pair, such as ``train and test``."""
        pairs: Counter[str] = Counter()
        for splits in self._splits.values():
            for pair in itertools.combinations(sort_splits(splits), 2):
                pairs[" and ".join(pair)] += 1
        return dict(pairs)


class DataSummary:
    """Running counts of what was kept and what was dropped."""

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self.clips: Counter[str] = Counter()
        self.speakers: dict[str, Counter[str]] = defaultdict(Counter)
        self.durations_s: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self.chars_per_s: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self.characters: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.licences: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
        self.dropped: Counter[str] = Counter()
        self.dropped_by_split: Counter[str] = Counter()
        self.examples: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.texts, self.sounds = Sharing(), Sharing()

    def add_clip(self, name: str, clip: Clip, text: str, sha256: str) -> None:
        """Count a clip that is kept.

        Args:
            name: what the source calls it.
            clip: as it goes into the manifest.
            text: its normalised text.
            sha256: hex digest of its decoded samples.
        """
        split = clip.split or "train"
        self.clips[split] += 1
        self.durations_s[split].append(clip.duration_s)
        self.chars_per_s[split].append(len(text) / clip.duration_s)
        self.characters.update(text)
        self.words[split] += text.count(" ") + 1
        self.speakers[split][clip.speaker or ""] += 1
        entry = self.licences[clip.source or "unknown", clip.licence or "not stated"]
        entry[0] += 1
        entry[1] += clip.duration_s
        self.texts.add(text.encode(), split, text)
        self.sounds.add(bytes.fromhex(sha256), split, name)

    def add_dropped(self, name: str, split: str, reason: str, detail: str) -> None:
        """Count a clip that is dropped."""
        self.dropped[reason] += 1
        self.dropped_by_split[split] += 1
        if len(self.examples[reason]) < EXAMPLES:
            self.examples[reason].append((name, detail))

    def describe_dropped(self) -> str:
        """Counts by reason in words."""
        return ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common()) or "none dropped"

    def list_shared_speakers(self) -> list[str]:
        """Named speakers in more than one split."""
        splits = [set(names) - {""} for names in self.speakers.values()]
        return sorted(set().union(*(a & b for a, b in itertools.combinations(splits, 2))))

    def to_dict(self) -> dict[str, Any]:
        """Everything that the report says, as plain values."""
        return {
            "source": self.name,
            "clips_taken": self.total,
            "splits": {split: self._describe_split(split) for split in sort_splits(self.clips)},
            "dropped": dict(self.dropped),
            "dropped_examples": {reason: [list(pair) for pair in pairs] for reason, pairs in self.examples.items()},
            "licences": [
                {"source": source, "licence": licence, "clips": int(clips), "hours": round(seconds / 3600, 4)}
                for (source, licence), (clips, seconds) in sorted(self.licences.items())
            ],
            "shared_texts": self.texts.count_pairs(),
            "shared_texts_examples": self.texts.examples,
            "shared_audio": self.sounds.count_pairs(),
            "shared_audio_examples": self.sounds.examples,
            "repeated_audio": self.sounds.repeats,
            "shared_speakers": self.list_shared_speakers(),
            "characters": dict(self.characters.most_common()),
        }

    def _describe_split(self, split: str) -> dict[str, Any]:
        durations_s = sorted(self.durations_s[split])
        return {
            "clips": self.clips[split],
            "hours": round(sum(durations_s) / 3600, 4),
            "speakers": len(set(self.speakers[split]) - {""}),
            "clips_without_speaker": self.speakers[split][""],
            "words": self.words[split],
            "shortest_s": round(durations_s[0], 2),
            "median_s": round(durations_s[len(durations_s) // 2], 2),
            "longest_s": round(durations_s[-1], 2),
            "dropped": self.dropped_by_split[split],
        }


def sort_splits(splits: Iterable[str]) -> list[str]:
    """Train, validation, test, then others by name."""
    order = {split: number for number, split in enumerate(SPLIT_ORDER)}
    return sorted(splits, key=lambda split: (order.get(split, len(order)), split))
