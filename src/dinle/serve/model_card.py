"""A bundle's README as HTML that a page can insert: no markup, addresses or styles but those that are named here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from markdown_it.token import Token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CARD_FILE = "README.md"
MAX_CARD_BYTES = 200_000  # what is longer is cut: the bundled models' have 3 and 11 kB
PUSH_LEVELS = 2  # the page has an h1, and an h2 for each model
DEEPEST_LEVEL = 6
WEB_PREFIXES = ("http://", "https://")


def read_card(folder: Path) -> str | None:
    """The card of the bundle in a folder as HTML, from at most its first 200 kB; ``None`` where it has none."""
    path = folder / CARD_FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        written = file.read(MAX_CARD_BYTES)
    return render_card(written.decode("utf-8", errors="ignore"))  # a letter may have been cut in two


def render_card(markdown: str) -> str:
    """CommonMark with tables as HTML.

    HTML in it is text. Links lead to http and https alone, others become their text; images become their descriptions;
    headings are two levels lower; cells are not aligned, as that would need a style.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(DEEPEST_LEVEL, int(token.tag[1:]) + PUSH_LEVELS)}"
        token.attrs.pop("style", None)
        token.children = token.children and list(_restrain_inline(token.children))
    return str(parser.renderer.render(tokens, parser.options, {}))


def _restrain_inline(tokens: list[Token]) -> Iterator[Token]:
    """The tokens of a line without images, and without links that leave the web; links do not nest (CommonMark 6.3)."""
    linked = False
    for token in tokens:
        if token.type == "link_open":
            linked = str(token.attrs.get("href", "")).casefold().startswith(WEB_PREFIXES)
        if token.type == "image":
            yield Token("text", "", 0, content=token.content)
        elif linked or token.type not in ("link_open", "link_close"):
            yield token
