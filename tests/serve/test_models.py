from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from dinle.errors import BundleCorruptError, BundleError, UsageError
from dinle.recognize.bundle import BUNDLE_FILE
from dinle.serve.errors import ModelUnknownError
from dinle.serve.models import ModelStore
from tests.fakes import fake_recognizer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dinle.recognize.recognizer import Recognizer


@dataclass
class Loader:
    """Stands for loading: a recogniser that spells what the bundle's ``text`` says."""

    loads: list[str] = field(default_factory=list)
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(self, folder: Path) -> Recognizer:
        self.loads.append(folder.name)
        assert self.gate.wait(10)
        data = json.loads((folder / BUNDLE_FILE).read_text())
        if "error" in data:
            raise {
                "memory": MemoryError("full"),
                "usage": UsageError("settings"),
                "file": BundleCorruptError("damaged"),
            }[data["error"]]
        return fake_recognizer(data["text"])

    def note(self, name: str, outcome: str) -> None:
        self.outcomes.append((name, outcome))


def describe(folder: Path, name: str, text: str = "", **more: str) -> Path:
    """Write a ``bundle.json`` that :class:`Loader` understands, in one step."""
    folder.mkdir(exist_ok=True)
    (folder / "new").write_text(json.dumps({"name": name, "text": text} | more))
    (folder / "new").replace(folder / BUNDLE_FILE)
    return folder


def run(
    folder: Path, main: Callable[[ModelStore, Loader], Awaitable[None]], default: Path | None = None, **options: Any
) -> Loader:
    """Run ``main`` with a store whose default spells "default" and whose folder of models is ``folder``."""

    async def whole() -> Loader:
        loader = Loader()
        store = ModelStore(loader, default or fake_recognizer("default"), folder, on_load=loader.note, **options)
        await main(store, loader)
        return loader

    return anyio.run(whole)


async def ask(store: ModelStore, name: str | None = None) -> str:
    """What the model spells."""
    async with store.use(name) as recognizer:
        return str(recognizer.engine.text)  # type: ignore[attr-defined]


def test_models_are_found_by_name_and_the_default_comes_first(tmp_path: Path) -> None:
    describe(tmp_path / "1", "zeytin", "z")
    describe(tmp_path / "2", "armut", "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("not a bundle")

    async def main(store: ModelStore, loader: Loader) -> None:
        assert store.names == ["fake", "zeytin", "armut"]
        assert (await ask(store, "armut"), await ask(store, "zeytin")) == ("a", "z")
        for name in (None, "", "whisper-1", "gpt-4o-transcribe", "fake"):
            assert await ask(store, name) == "default"
        with pytest.raises(ModelUnknownError, match="choose from fake, zeytin, armut"):
            await ask(store, "elma")

    run(tmp_path, main)


def test_a_bundle_may_bear_one_of_openais_names(tmp_path: Path) -> None:
    describe(tmp_path / "1", "whisper-1", "own")

    async def main(store: ModelStore, loader: Loader) -> None:
        assert await ask(store, "whisper-1") == "own"

    run(tmp_path, main)


def test_without_the_folder_the_error_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ASR_MODELS_DIR is '.*yok', and there is no such folder"):
        ModelStore(Loader(), fake_recognizer(), tmp_path / "yok")


def test_twenty_first_requests_load_a_model_once(tmp_path: Path) -> None:
    describe(tmp_path / "a", "armut", "a")
    describe(tmp_path / "b", "bal", "b")

    async def main(store: ModelStore, loader: Loader) -> None:
        assert (list(store.loaded), loader.loads) == (["fake"], [])
        loader.gate.clear()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask, store, "armut")
            await anyio.sleep(0.05)
            assert await ask(store) == "default"  # who wants another model does not wait
            loader.gate.set()
        assert (loader.loads, list(store.loaded)) == (["a"], ["fake", "armut"])

    assert run(tmp_path, main).outcomes == [("armut", "loaded")]


def test_a_model_is_unloaded_when_it_was_idle_for_long(tmp_path: Path) -> None:
    describe(tmp_path / "a", "armut", "a")
    describe(tmp_path / "b", "bal", "b")

    async def main(store: ModelStore, loader: Loader) -> None:
        await ask(store, "armut")
        await store.refresh()
        assert list(store.loaded) == ["fake", "armut"]  # not idle for long
        async with store.use("bal") as used:
            await anyio.sleep(0.15)
            await store.refresh()
            assert list(store.loaded) == ["fake", "bal"]  # the default stays, what is in use too
            assert store.loaded["bal"] is used
        await store.refresh()
        assert "bal" in store.loaded  # its idle time begins with the end of its use
        await anyio.sleep(0.15)
        await store.refresh()
        assert (list(store.loaded), store.names) == (["fake"], ["fake", "armut", "bal"])
        assert await ask(store, "armut") == "a"  # and it comes back

    loader = run(tmp_path, main, idle_s=0.1)
    assert loader.outcomes == [
        ("armut", "loaded"), ("bal", "loaded"), ("armut", "unloaded"), ("bal", "unloaded"), ("armut", "loaded"),
    ]  # fmt: skip


def test_without_an_idle_time_nothing_is_unloaded(tmp_path: Path) -> None:
    describe(tmp_path / "a", "armut", "a")

    async def main(store: ModelStore, loader: Loader) -> None:
        await ask(store, "armut")
        await store.refresh()
        assert "armut" in store.loaded

    run(tmp_path, main, idle_s=0.0)


def test_bundles_come_and_go(tmp_path: Path) -> None:
    describe(tmp_path / "a", "armut", "a")

    async def main(store: ModelStore, loader: Loader) -> None:
        describe(tmp_path / "b", "bal", "b")
        assert store.names == ["fake", "armut"]
        await store.refresh()
        assert store.names == ["fake", "armut", "bal"]
        assert await ask(store, "bal") == "b"
        async with store.use("armut") as used:
            shutil.rmtree(tmp_path / "a")
            shutil.rmtree(tmp_path / "b")
            await store.refresh()
            assert (store.names, list(store.loaded)) == (["fake"], ["fake"])
            assert used.engine.text == "a"  # type: ignore[attr-defined]  # who has begun goes on
        with pytest.raises(ModelUnknownError):
            await ask(store, "armut")

    outcomes = run(tmp_path, main).outcomes
    assert outcomes[:2] == [("bal", "loaded"), ("armut", "loaded")]
    assert sorted(outcomes[2:]) == [("armut", "unloaded"), ("bal", "unloaded")]


def test_of_two_bundles_of_one_name_the_first_is_offered_and_the_other_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    describe(tmp_path / "a", "armut", "first")
    describe(tmp_path / "b", "armut", "second")
    describe(tmp_path / "c", "fake", "not the default")

    async def main(store: ModelStore, loader: Loader) -> None:
        for _ in range(3):
            await store.refresh()
        assert (store.names, await ask(store, "armut")) == (["fake", "armut"], "first")
        shutil.rmtree(tmp_path / "a")
        await store.refresh()
        assert await ask(store, "armut") == "second"

    run(tmp_path, main, default=describe(tmp_path.parent / f"{tmp_path.name}-default", "fake", "default"))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    assert re.search(r"/b: the bundle at .*/a is called armut too", told[0])
    assert re.search(r"/c: the bundle at .*default is called fake too", told[1])


@pytest.mark.parametrize("absolute", [True, False])
def test_the_default_may_lie_among_the_others(
    tmp_path: Path, absolute: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    describe(tmp_path / "a", "armut", "a")
    (tmp_path / "link").symlink_to("a")

    async def main(store: ModelStore, loader: Loader) -> None:
        assert store.names == ["armut"]
        assert await ask(store, "armut") == await ask(store) == "a"

    assert len(run(Path(), main, default=tmp_path / "a" if absolute else Path("a")).loads) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"text"', "\xff"])
def test_a_broken_description_is_left_out_beside_good_ones(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / BUNDLE_FILE).write_text(content, encoding="latin-1")
    describe(tmp_path / "good", "armut", "a")

    async def main(store: ModelStore, loader: Loader) -> None:
        for _ in range(3):
            await store.refresh()
        assert (store.names, await ask(store, "armut")) == (["fake", "armut"], "a")
        assert [record.levelname for record in caplog.records if "broken/bundle.json" in record.message] == ["WARNING"]
        describe(tmp_path / "broken", "bal", "b")  # repaired
        await store.refresh()
        assert await ask(store, "bal") == "b"

    run(tmp_path, main)


@pytest.mark.parametrize("error", ["memory", "usage", "file"])
def test_a_model_that_cannot_be_loaded_fails_its_own_requests(tmp_path: Path, error: str) -> None:
    describe(tmp_path / "a", "armut", error=error)

    async def main(store: ModelStore, loader: Loader) -> None:
        with pytest.raises(BundleError, match="damaged" if error == "file" else "armut at .* cannot be loaded"):
            await ask(store, "armut")
        assert (await ask(store), list(store.loaded)) == ("default", ["fake"])
        describe(tmp_path / "a", "armut", "a")
        assert await ask(store, "armut") == "a"

    assert run(tmp_path, main).outcomes == [("armut", "failed"), ("armut", "loaded")]


def test_twenty_first_requests_share_one_failure(tmp_path: Path) -> None:
    describe(tmp_path / "a", "armut", error="memory")

    async def main(store: ModelStore, loader: Loader) -> None:
        loader.gate.clear()
        asked = [asyncio.ensure_future(ask(store, "armut")) for _ in range(20)]
        await anyio.sleep(0.05)
        asked[0].cancel()  # the first to ask leaves
        loader.gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer).__name__ for answer in answers] == ["CancelledError"] + ["BundleError"] * 19
        assert loader.loads == ["a"]
        with pytest.raises(BundleError):  # tried again: memory may be free by now
            await ask(store, "armut")
        assert loader.loads == ["a", "a"]

    run(tmp_path, main)


def test_the_old_model_answers_while_the_new_one_is_loaded(tmp_path: Path) -> None:
    describe(tmp_path / "a", "armut", "old")

    async def main(store: ModelStore, loader: Loader) -> None:
        await ask(store, "armut")
        describe(tmp_path / "a", "armut", "new")
        loader.gate.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(store.refresh)
            while len(loader.loads) < 2:  # noqa: ASYNC110 - loading happens in a thread
                await anyio.sleep(0.005)
            with anyio.fail_after(1):
                async with store.use("armut") as begun:
                    loader.gate.set()
                    while store.loaded["armut"] is begun:  # noqa: ASYNC110 - as above
                        await anyio.sleep(0.005)
                    assert begun.engine.text == "old"  # type: ignore[attr-defined]
            assert await ask(store, "armut") == "new"
        await store.refresh()

    loader = run(tmp_path, main)
    assert (loader.loads, loader.outcomes) == (["a", "a"], [("armut", "loaded"), ("armut", "swapped")])


@pytest.mark.parametrize("error", ["memory", "usage", "file"])
def test_a_swap_that_fails_is_tried_again_when_the_bundle_changes(
    tmp_path: Path, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    describe(tmp_path / "a", "armut", "old")
    describe(tmp_path / "b", "bal", "old")

    async def main(store: ModelStore, loader: Loader) -> None:
        await ask(store, "armut")
        await ask(store, "bal")
        describe(tmp_path / "a", "armut", error=error)
        describe(tmp_path / "b", "bal", "new")
        for _ in range(3):
            await store.refresh()
        assert loader.loads == ["a", "b", "a", "b"]
        assert (await ask(store, "armut"), await ask(store, "bal")) == ("old", "new")
        (failed,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "model armut stays as it was, the new one cannot be loaded" in failed.message
        describe(tmp_path / "a", "armut", "new")
        await store.refresh()
        assert await ask(store, "armut") == "new"

    loader = run(tmp_path, main)
    assert [outcome for name, outcome in loader.outcomes if name == "armut"] == ["loaded", "failed", "swapped"]


def test_a_description_that_breaks_leaves_the_model_where_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    describe(tmp_path / "a", "armut", "old")

    async def main(store: ModelStore, loader: Loader) -> None:
        await ask(store, "armut")
        write_text(tmp_path / "a" / BUNDLE_FILE, '{"name": "arm')  # copied in place, and seen half way
        for _ in range(3):
            await store.refresh()
        assert await ask(store, "armut") == "old"
        assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["ERROR"]
        describe(tmp_path / "a", "armut", "new")
        await store.refresh()
        assert await ask(store, "armut") == "new"

    assert run(tmp_path, main).outcomes == [("armut", "loaded"), ("armut", "failed"), ("armut", "swapped")]


def write_text(path: Path, text: str) -> None:
    path.write_text(text)


def test_the_default_is_swapped_too_and_outlives_its_folder(tmp_path: Path) -> None:
    describe(tmp_path / "a", "armut", "old")

    async def main(store: ModelStore, loader: Loader) -> None:
        assert await ask(store) == "old"
        describe(tmp_path / "a", "armut", "new")
        await store.refresh()
        assert await ask(store) == "new"
        shutil.rmtree(tmp_path / "a")
        await store.refresh()
        assert (await ask(store), await ask(store, "armut")) == ("new", "new")

    run(tmp_path, main, default=tmp_path / "a")


def test_the_watch_survives_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    describe(tmp_path / "a", "armut", "old")
    errors = iter([OSError("the disk went away"), RuntimeError("and again")])

    async def main(store: ModelStore, loader: Loader) -> None:
        await ask(store, "armut")
        find = store._find_bundles

        def fail_at_first() -> dict[str, Path]:
            for error in errors:
                raise error
            return find()

        store._find_bundles = fail_at_first  # type: ignore[method-assign]
        describe(tmp_path / "a", "armut", "new")
        watch = asyncio.ensure_future(store.keep_fresh(0.01))
        with anyio.fail_after(5):
            while await ask(store, "armut") != "new":  # noqa: ASYNC110 - the store has no event for it
                await anyio.sleep(0.01)
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch

    run(tmp_path, main)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "the disk went away",
        "and again",
    ]
