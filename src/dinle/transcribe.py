"""``dinle transcribe``: audio files -> text, JSON or subtitles."""

from __future__ import annotations

import glob
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from dinle.config import Arg, Backend
from dinle.errors import AudioError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dinle.recognize.recognizer import Recognizer
    from dinle.recognize.transcript import Transcript

Format = Literal["text", "json", "srt", "vtt"]
STDIN = "-"
SUFFIXES = ".3gp .aac .aif .aiff .amr .flac .m4a .mka .mkv .mov .mp3 .mp4 .oga .ogg .opus .wav .webm .wma"
AUDIO_SUFFIXES = frozenset(SUFFIXES.split())


@dataclass(frozen=True)
class TranscribeConfig:
    """audio files -> transcripts."""

    files: Annotated[
        tuple[str, ...], Arg("audio files, folders, glob patterns, or - for standard input", positional=True)
    ]
    model: Annotated[str | None, Arg("bundle folder (default: the bundled model)", flags=("-m",))] = None
    backend: Annotated[Backend, "which engine runs the model (auto: the best measured)"] = "auto"
    threads: Annotated[int | None, "threads of the engine (default: all cores)"] = None
    format: Annotated[Format, Arg("what to write", flags=("-f",))] = "text"
    output_dir: Annotated[
        Path | None,
        Arg("write a file for each input here (default: print); with --ray the Parquet file of all", flags=("-o",)),
    ] = None
    ray: Annotated[
        bool, "many files on all cores, or on the cluster at RAY_ADDRESS, into a Parquet file; a killed run goes on"
    ] = False
    written: Annotated[
        bool, "write numbers, dates, times, money and telephone numbers as people write them (needs the extra itn)"
    ] = False
    language_model: Annotated[bool, "let the bundle's language model have a say in the text, where it has one"] = True
    hotwords: Annotated[str | None, "names and terms to be expected, parted by commas"] = None
    hotwords_file: Annotated[Path | None, "file with more of them, one a line; # begins a comment"] = None


def transcribe_files(config: TranscribeConfig) -> int:
    """Transcribe every file, print or write the transcripts, and go on past files that cannot be read.

    Returns:
        0, or 1 when a file failed (each is named on stderr).

    Raises:
        UsageError: nothing matches, several subtitle files without an output folder, hot words that are none, or options that
            ``--ray`` does not go with.
        MissingExtraError: the written form is asked for, and damga is not installed.
    """
    from dinle.recognize.load import load
    from dinle.recognize.written import WrittenForm

    sources = expand_sources(config.files)
    if config.ray:
        return _transcribe_in_bulk(config, sources)
    if len(sources) > 1 and config.format in {"srt", "vtt"} and config.output_dir is None:
        raise UsageError(
            f"{len(sources)} files as {config.format} need a folder to be written to: add --output_dir FOLDER"
        )
    outputs = name_outputs(sources, config)
    written_form = WrittenForm() if config.written else None
    hot_words = _collect_hot_words(config)
    recognizer = load(
        config.model, backend=config.backend, threads=config.threads, language_model=config.language_model
    ).with_hot_words(hot_words)
    failed = 0
    for source in sources:
        try:
            transcript = _transcribe_one(recognizer, source, show_progress=sys.stderr.isatty())
        except (AudioError, OSError) as error:
            print(f"dinle transcribe: {error}", file=sys.stderr)
            failed += 1
            continue
        transcript = written_form.write_transcript(transcript) if written_form else transcript
        _deliver(transcript, source, config, outputs[source], several=len(sources) > 1)
    if failed:
        print(f"dinle transcribe: {failed} of {len(sources)} files could not be transcribed", file=sys.stderr)
    return 1 if failed else 0


def _collect_hot_words(config: TranscribeConfig) -> tuple[str, ...]:
    from dinle.hot_word_lists import collect_hot_words

    return collect_hot_words(config.hotwords, config.hotwords_file, text_name="--hotwords", path_name="--hotwords_file")


def _transcribe_in_bulk(config: TranscribeConfig, sources: list[str]) -> int:
    if STDIN in sources or config.format != "text":
        raise UsageError("--ray reads files and writes a Parquet file with everything; leave out - and --format")
    from dinle.scale.bulk import transcribe_bulk

    outcome = transcribe_bulk(config, sources, _collect_hot_words(config))
    print(outcome.output)
    for count, what in (
        (outcome.done_before, "were done before"),
        (outcome.failed, f"could not be transcribed, see {outcome.errors}"),
    ):
        if count:
            print(f"dinle transcribe: {count} of {len(sources)} files {what}", file=sys.stderr)
    return 1 if outcome.failed else 0


def expand_sources(patterns: Sequence[str]) -> list[str]:
    """Files behind names, folders (searched in depth for audio files) and glob patterns, each once, in order.

    Raises:
        UsageError: a pattern or a folder yields nothing.
    """
    sources: dict[str, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if pattern == STDIN or path.is_file():
            found = [pattern]
        elif path.is_dir():
            found = sorted(str(p) for p in path.rglob("*") if p.suffix.casefold() in AUDIO_SUFFIXES and p.is_file())
        else:
            matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - a pattern may be absolute
            found = sorted(name for name in matches if Path(name).is_file())
        if not found:
            raise UsageError(
                f"{pattern!r} matches no audio file; give files, folders, glob patterns, or - for standard input"
            )
        sources.update(dict.fromkeys(found))
    return list(sources)


def name_outputs(sources: Sequence[str], config: TranscribeConfig) -> dict[str, Path | None]:
    """The file that each transcript is written to, ``None`` where it is printed.

    Raises:
        UsageError: two inputs would be written to the same file, or the folder is a file.
    """
    if config.output_dir is None:
        return dict.fromkeys(sources)
    if config.output_dir.exists() and not config.output_dir.is_dir():
        raise UsageError(f"--output_dir {config.output_dir} is a file; give a folder")
    suffix = {"text": "txt"}.get(config.format, config.format)
    outputs: dict[str, Path | None] = {}
    takers: dict[Path, str] = {}
    for source in sources:
        path = config.output_dir / f"{'stdin' if source == STDIN else Path(source).name}.{suffix}"
        if path in takers:
            raise UsageError(
                f"{takers[path]} and {source} would both be written to {path}; transcribe them into two folders"
            )
        takers[path] = source
        outputs[source] = path
    return outputs


def _transcribe_one(recognizer: Recognizer, source: str, *, show_progress: bool) -> Transcript:
    # A pipe cannot be searched, and some containers keep their index at the end: standard input is read whole.
    audio = sys.stdin.buffer.read() if source == STDIN else Path(source)
    if not show_progress:
        return recognizer.transcribe(audio)
    from dinle.progress import progress
    from dinle.recognize.audio import find_duration

    said_s = find_duration(audio)
    with progress(f"transcribing {source} (seconds)", total=None if said_s is None else round(said_s)) as bar:
        transcript = recognizer.transcribe(audio, on_progress=lambda seconds: bar.update(completed=round(seconds)))
        bar.update(total=round(transcript.duration_s))
    return transcript


def _deliver(
    transcript: Transcript, source: str, config: TranscribeConfig, path: Path | None, *, several: bool
) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(transcript, config.format), encoding="utf-8")
        print(path)
    elif config.format == "json":
        print(json.dumps({"file": source, **transcript.to_dict()}, ensure_ascii=False))
    elif config.format == "text" and several:
        print(f"{source}: {transcript.text}")
    else:
        print(render(transcript, config.format), end="" if config.format in {"srt", "vtt"} else None)


def render(transcript: Transcript, form: Format) -> str:
    """The transcript in one of the four formats."""
    writers = {
        "text": lambda: transcript.text,
        "json": transcript.to_json,
        "srt": transcript.to_srt,
        "vtt": transcript.to_vtt,
    }
    return writers[form]()
