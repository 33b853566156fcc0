"""The documents are true: their code runs, their commands parse, their links and paths exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dinle.cli import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*/README.md"), *ROOT.glob("data/*/*.md")]
)


def find_blocks(language: str) -> list[tuple[str, str]]:
    """(document, code) of every fenced block in a language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        (str(path.relative_to(ROOT)), code)
        for path in DOCUMENTS
        for code in fence.findall(path.read_text(encoding="utf-8"))
    ]


def find_commands() -> list[list[str]]:
    """The words of every dinle command and classic script in the documents' shell blocks."""
    commands = []
    for _, code in find_blocks("sh"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for start, word in enumerate(words):
                script = re.fullmatch(r"scripts/(\w+)\.py", word)
                if word == "dinle" and start + 1 < len(words) and words[start - 1] != "install":
                    commands.append(words[start + 1 :])
                elif script:
                    commands.append([script[1], *words[start + 1 :]])
    return commands


@pytest.mark.slow
@pytest.mark.parametrize(("document", "code"), find_blocks("python"))
def test_python_blocks_run(document: str, code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{document}: {done.stderr}"
    assert done.stdout.strip()


@pytest.mark.parametrize("words", find_commands(), ids=" ".join)
def test_commands_parse(words: list[str]) -> None:
    (command,) = [command for command in COMMANDS if command.name == words[0]]
    assert build_parser(command).parse_args(words)


def test_every_command_is_in_the_readme() -> None:
    shown = {words[0] for words in find_commands()}
    assert {command.name for command in COMMANDS} <= shown


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf-8"))
    assert not [t for t in targets if not t.startswith("http") and not (path.parent / t).exists()]


def test_the_tree_is_the_tree() -> None:
    (tree,) = re.findall(
        r"^## The tree\n\n```\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    source, missing = Path(), []
    for line in tree.splitlines():
        if line.startswith("src/dinle/"):
            source = ROOT / "src" / "dinle"
        folder = re.match(r"  (\w+)/  ", line)
        if folder:
            source = ROOT / "src" / "dinle" / folder[1]
        names = (
            re.findall(r"\b[\w/]+\.py\b", line.split("  # ")[0]) if source != Path() and line.startswith(" ") else []
        )
        missing += [
            name for name in names if not (source / name).exists() and not (ROOT / "src" / "dinle" / name).exists()
        ]
    assert not missing
    written = set(re.findall(r"[\w/]+\.py\b", tree))
    present = {path.name for path in (ROOT / "src" / "dinle").rglob("*.py") if path.name != "__init__.py"}
    assert present <= {Path(name).name for name in written}


def test_nothing_is_left_to_fill_in() -> None:
    for path in DOCUMENTS:
        assert "@@" not in path.read_text(encoding="utf-8"), path
