"""The models that a service offers: loaded on first use, unloaded after idle time, swapped when their bundle changes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinle.errors import BundleError, DinleError, UsageError
from dinle.recognize.bundle import BUNDLE_FILE
from dinle.recognize.recognizer import Recognizer
from dinle.serve.errors import ModelUnknownError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

logger = logging.getLogger(__name__)

# What clients of OpenAI's API have written into them: they mean the default model.
DEFAULT_ALIASES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")

Fingerprint = tuple[int, int, int]


@dataclass(eq=False)
class Entry:
    """A model that can be asked for.

    Attributes:
        name: what it is asked for by.
        folder: its bundle (``None``: given as an object, or not a bundle).
        recognizer: where it is loaded.
        fingerprint: of the ``bundle.json`` that was loaded, or that failed to load.
        users: requests that work with it now.
        used_at: when the last of them ended, on the monotonic clock.
        loading: while it is loaded for the first of them.
    """

    name: str
    folder: Path | None
    recognizer: Recognizer | None = None
    fingerprint: Fingerprint | None = None
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)
    loading: asyncio.Future[Recognizer] | None = None


class ModelStore:
    """Finds models by name. All methods belong to the event loop; loading happens in threads.

    A change of a bundle is seen by its ``bundle.json``, which is written last: copy the graphs first. The new model is
    loaded, its hashes verified, and warmed up beside the old one, which answers until then and finishes what it has begun;
    a bundle that cannot be loaded leaves the old one where it is.

    Args:
        load: loads the bundle in a folder and warms it up; runs in a thread.
        default: the default model's folder (a bundle, or for pytorch what is loaded by that name), or the loaded model.
        models_dir: a folder with more bundles (``None``: no more).
        idle_s: seconds without use after which a model other than the default is unloaded; 0: never.
        on_load: is told the name and ``loaded``, ``swapped``, ``failed`` or ``unloaded``.

    Raises:
        UsageError: there is no folder ``models_dir``.
    """

    def __init__(
        self,
        load: Callable[[Path], Recognizer],
        default: Recognizer | Path,
        models_dir: Path | None = None,
        *,
        idle_s: float = 0.0,
        on_load: Callable[[str, str], None] = lambda _name, _outcome: None,
    ) -> None:
        self._load = load
        self._models_dir = models_dir
        self._idle_s = idle_s
        self._on_load = on_load
        if models_dir is not None and not models_dir.is_dir():
            raise UsageError(
                f"ASR_MODELS_DIR is {str(models_dir)!r}, and there is no such folder; expected one with bundles"
            )
        if isinstance(default, Path):
            self._default = Entry(read_name(default), default)
        else:
            folder = default.bundle.folder if default.bundle is not None else None
            self._default = Entry(default.name, folder, default, read_fingerprint(folder) if folder else None)
        self._told: set[str] = set()
        self._entries: dict[str, Entry] = {}
        self._take_over(self._find_bundles())

    @property
    def default(self) -> str:
        """Name of the model that is taken where none is asked for."""
        return self._default.name

    @property
    def names(self) -> list[str]:
        """What can be asked for, the default first."""
        return list(self._entries)

    @property
    def loaded(self) -> dict[str, Recognizer]:
        """The models in memory."""
        return {name: entry.recognizer for name, entry in self._entries.items() if entry.recognizer is not None}

    def find(self, name: str | None) -> str:
        """The name of the model that is meant: the default for ``None``, an empty name and OpenAI's own names.

        Raises:
            ModelUnknownError: there is none of that name.
        """
        if not name or (name in DEFAULT_ALIASES and name not in self._entries):
            return self.default
        if name not in self._entries:
            raise ModelUnknownError(name, self.names)
        return name

    def find_folder(self, name: str) -> Path | None:
        """The folder of a model, or what it is loaded by; ``None`` where it was given as an object without one.

        Raises:
            ModelUnknownError: there is none of exactly that name.
        """
        if name not in self._entries:
            raise ModelUnknownError(name, self.names)
        return self._entries[name].folder

    @asynccontextmanager
    async def use(self, name: str | None = None) -> AsyncIterator[Recognizer]:
        """A model for the time of a request, loaded first where it is not.

        Raises:
            ModelUnknownError: there is none of that name.
            BundleError: it cannot be loaded.
        """
        entry = self._entries[self.find(name)]
        entry.users += 1
        try:
            yield entry.recognizer if entry.recognizer is not None else await self._load_first(entry)
        finally:
            entry.users -= 1
            entry.used_at = time.monotonic()

    async def _load_first(self, entry: Entry) -> Recognizer:
        """One loads; those who come meanwhile wait for it, and get its error too. The next one tries again."""

        def end(_: object) -> None:
            entry.loading = None

        if entry.loading is None:
            entry.loading = asyncio.ensure_future(self._load_entry(entry, "loaded"))
            entry.loading.add_done_callback(end)
        return await asyncio.shield(entry.loading)  # who leaves does not take it away from the others

    async def _load_entry(self, entry: Entry, outcome: str) -> Recognizer:
        assert entry.folder is not None  # noqa: S101 - for the type checker
        # Before loading: a bundle that changes meanwhile is seen the next time.
        entry.fingerprint = await asyncio.to_thread(read_fingerprint, entry.folder)
        try:
            entry.recognizer = recognizer = await asyncio.to_thread(self._load, entry.folder)
        except Exception as error:
            self._on_load(entry.name, "failed")
            if isinstance(error, BundleError):
                raise
            # Not the fault of who asked, also where it is a UsageError: of the settings, of a file that went away, of the engine.
            raise BundleError(f"the model {entry.name} at {entry.folder} cannot be loaded: {error!r}") from error
        self._on_load(entry.name, outcome)
        logger.info("model %s %s from %s", entry.name, outcome, entry.folder)
        return recognizer

    async def refresh(self) -> None:
        """Find new bundles, forget those that are gone, swap models whose bundles have changed, unload those idle for long."""
        self._take_over(await asyncio.to_thread(self._find_bundles))
        for entry in list(self._entries.values()):
            if entry.recognizer is None or entry.folder is None:
                continue
            if await asyncio.to_thread(read_fingerprint, entry.folder) not in (entry.fingerprint, None):
                await self._swap(entry)
            elif self._is_idle(entry):
                self._unload(entry, f"unloaded after {self._idle_s:g} s without a request")

    def _find_bundles(self) -> dict[str, Path]:
        """Names and folders of the bundles in the folder of models; what is left out is told once."""
        found: dict[str, Path] = {}
        left_out: set[str] = set()
        paths = () if self._models_dir is None else sorted(self._models_dir.glob(f"*/{BUNDLE_FILE}"))
        for folder in (path.parent for path in paths):
            try:
                name = read_name(folder)
            except DinleError as error:
                # Half written, perhaps: what is known by this folder stays, and the swap that follows tells what is wrong.
                known = [entry.name for entry in self._entries.values() if entry.folder == folder]
                if not known:
                    left_out.add(str(error))
                    continue
                name = known[0]
            taken = self._default.folder if name == self._default.name else found.setdefault(name, folder)
            if taken is not None and taken.resolve() != folder.resolve():
                left_out.add(f"{folder}: the bundle at {taken} is called {name} too; rename one of them")
        for message in sorted(left_out - self._told):
            logger.warning("left out: %s", message)
        self._told = left_out
        return found

    def _take_over(self, found: dict[str, Path]) -> None:
        """Offer the default and what was found; what is known stays as it is, what is gone is forgotten."""
        entries = {self._default.name: self._default}
        for name, folder in found.items():
            known = self._entries.get(name)
            entries[name] = known if known is not None and known.folder == folder else Entry(name, folder)
        gone = [entry for name, entry in self._entries.items() if entries.get(name) is not entry]
        self._entries = entries
        for entry in gone:
            if entry.recognizer is not None:
                self._unload(entry, "unloaded, as its bundle is gone")

    def _unload(self, entry: Entry, reason: str) -> None:
        entry.recognizer = None
        self._on_load(entry.name, "unloaded")
        logger.info("model %s %s", entry.name, reason)

    def _is_idle(self, entry: Entry) -> bool:
        if entry is self._default or not self._idle_s or entry.users:
            return False
        return time.monotonic() - entry.used_at >= self._idle_s

    async def _swap(self, entry: Entry) -> None:
        try:
            await self._load_entry(entry, "swapped")
        except BundleError as error:
            logger.error("model %s stays as it was, the new one cannot be loaded: %s", entry.name, error)  # noqa: TRY400

    async def keep_fresh(self, period_s: float) -> None:
        """Call :meth:`refresh` every ``period_s`` seconds, for ever."""
        while True:
            await asyncio.sleep(period_s)
            try:
                await self.refresh()
            except Exception:  # a full disk must not end the watch
                logger.exception("looking for changed models failed")


def read_fingerprint(folder: Path) -> Fingerprint | None:
    """What changes when ``bundle.json`` is written anew; ``None`` while there is none."""
    try:
        status = (folder / BUNDLE_FILE).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_name(folder: Path) -> str:
    """The name of the model in a bundle folder, without reading the rest; of other folders their own name.

    Raises:
        UsageError: ``bundle.json`` is not JSON with a name.
    """
    path = folder / BUNDLE_FILE
    if not path.is_file():
        return folder.name
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        return str(data["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not JSON with a name ({error!r}); export the bundle again") from error
