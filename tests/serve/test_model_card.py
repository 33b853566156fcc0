"""A README becomes HTML that may be inserted as it is: whatever is in it, no script, no style, no other address."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinle.serve.model_card import MAX_CARD_BYTES, read_card, render_card
from tests.serve.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED_TAGS = {
    "h3", "h4", "h5", "h6", "p", "a", "em", "strong", "code", "pre", "ul", "ol", "li", "blockquote", "hr", "br",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
# Pieces that have broken renderers, to be strung together.
PIECES = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!-- -->", "<a href=javascript:x>", "<javascript:alert(1)>",
    "[a](javascript:alert(1))", "[a](JaVaScript&colon;alert(1))", "[a](https://example.org '\"><script>')",
    "![a](https://example.org/a.png)", "[a]: data:text/html,x", "[a]", "//example.org", "# ", "###### ", "> ", "- ",
    "|a|b|\n|:-|-:|\n|c|d|", "```js\nalert(1)\n```", '```"><script>\nx\n```', "\n", "\n\n", "&lt;script&gt;", "`<b>`",
    "**", "_", "[", "](", ")", "<", ">", '"', "'",
]  # fmt: skip


class Tags(HTMLParser):
    """Collects the tags of an HTML text, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def check_harmless(html: str) -> None:
    tags = Tags(html)
    assert tags.comments == []
    for tag, attrs in tags.found:
        assert tag in ALLOWED_TAGS
        if tag == "a":
            assert str(attrs["href"]).startswith(("http://", "https://"))
        allowed = {"a": {"href", "title"}, "code": {"class"}, "ol": {"start"}}.get(tag, set())
        assert set(attrs) <= allowed, (tag, attrs)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=30).map("".join))
def test_nothing_that_acts_comes_through(markdown: str) -> None:
    check_harmless(render_card(markdown))


@pytest.mark.parametrize("name", ["dinle-base-tr", "dinle-ctc-tr"])
def test_the_bundled_models_have_readable_cards(name: str) -> None:
    html = read_card(ROOT / "models" / name)
    assert html is not None
    check_harmless(html)
    assert html.startswith(f"<h3>{name}</h3>")
    assert "<table>" in html


def test_html_is_text() -> None:
    html = render_card("<script>alert(1)</script>\n\nx <b onclick=y>z</b>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<p>x &lt;b onclick=y&gt;z&lt;/b&gt;</p>" in html


@pytest.mark.parametrize(
    "link",
    ["[söz](javascript:alert(1))", "[söz](../../docs/bundle.md#int8)", "[söz](//example.org)", "[söz](ftp://example.org/a)",
     "[söz](mailto:a@example.org)", "[söz](data:text/html,x)", "[söz](#here)"],
)  # fmt: skip
def test_links_that_do_not_lead_to_the_web_are_text(link: str) -> None:
    html = render_card(f"a {link} b")
    assert "<a" not in html
    assert "söz" in html


def test_links_to_the_web_stay() -> None:
    assert render_card("[a **b**](https://example.org/?x=1&y=2)") == (
        '<p><a href="https://example.org/?x=1&amp;y=2">a <strong>b</strong></a></p>\n'
    )
    assert render_card("[x](../y) [z](HTTP://example.org)") == '<p>x <a href="HTTP://example.org">z</a></p>\n'


def test_an_image_becomes_its_description() -> None:
    assert (
        render_card("[![a <b>](https://e.org/a.png)](https://e.org)")
        == '<p><a href="https://e.org">a &lt;b&gt;</a></p>\n'
    )


def test_headings_go_down_two_levels() -> None:
    html = render_card("# a\n\n## b\n\n### c\n\n##### d\n\ne\n=")
    assert html == "<h3>a</h3>\n<h4>b</h4>\n<h5>c</h5>\n<h6>d</h6>\n<h3>e</h3>\n"


def test_cells_carry_no_style() -> None:
    html = render_card("| a | b |\n|:--|--:|\n| 1 | 2 |")
    assert "<td>1</td>\n<td>2</td>" in html


def test_a_long_card_is_cut_between_letters(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x" + "ş" * MAX_CARD_BYTES, encoding="utf-8")  # the cut falls inside a letter
    assert read_card(tmp_path) == f"<p>x{'ş' * (MAX_CARD_BYTES // 2 - 1)}</p>\n"


def test_a_folder_without_a_card_has_none(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
    (tmp_path / "README.md").mkdir()
    assert read_card(tmp_path) is None
