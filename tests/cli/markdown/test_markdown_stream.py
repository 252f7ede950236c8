"""The Markdown stream and its printer, on a terminal's screen."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.color import ColorSystem

from antiphon.cli.markdown.line_printer import LinePrinter
from antiphon.cli.markdown.markdown_stream import MarkdownStream
from antiphon.cli.markdown.styled_line import Line, line_text, render_spans
from support.example_counts import examples
from support.terminal_screen import TerminalScreen, rows_of

_WORDS = st.sampled_from(
    (
        "a",
        "the",
        "lighthouse",
        "**bold**",
        "*it*",
        "`code x`",
        "[link](https://e.org/a)",
        "snake_case",
        "**two",
        "words**",
        "*args",
        "$5",
        "$x_1$",
        "\\(a*b\\)",
        "2 * 3",
        "<b>",
        "https://e.org/p?q=1.",
        "日本語です。",
        "👋🏽",
        "é",
        "e\u0301",
        "❤️",
        "&amp;",
        "~~no~~",
        "![i](https://e.org/i.png)",
        "\\*",
        "[1]",
        "``x`y``",
    )
)
_LINE_STARTS = st.sampled_from(
    [
        "",
        "",
        "",
        "- ",
        "  - ",
        "* ",
        "1. ",
        "12) ",
        "# ",
        "### ",
        "> ",
        "> - ",
        "- [ ] ",
        "   ",
        "    ",
        "- > ",
    ]
)
_BLOCKS = st.sampled_from(
    (
        "",
        "---",
        "***",
        "-",
        "#",
        "| no table |",
        "```\n日本\n```",
        "```python\ndef f(x: int) -> str:\n\treturn '''a\nb'''\n```",
        "~~~c\n/* a\n b */ int x;\n~~~",
        "> ```js\n> let a = 1\n> ```",
        "| a | b |\n|---|:-:|\n| 1 | **2** |\n| 日本 | `x|y` |",
    )
)
LINES = st.one_of(
    st.builds(
        lambda start, words: start + " ".join(words), _LINE_STARTS, st.lists(_WORDS, max_size=20)
    ),
    _BLOCKS,
)
TEXTS = st.one_of(
    st.lists(LINES, max_size=10).map("\n".join),
    st.text(alphabet="ab *_`~#>-|[]()!<&\\$1.\n\té日👋\u200d\ufe0f\u0301:/hts", max_size=120),
)


@st.composite
def divided(draw: st.DrawFn) -> list[str]:
    """A text in pieces."""
    text = draw(TEXTS)
    pieces = []
    while text:
        size = draw(st.integers(1, draw(st.sampled_from([1, 4, 30, 400]))))
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def lines_of(pieces: list[str], width: int) -> list[Line]:
    stream = MarkdownStream(width)
    lines: list[Line] = []
    for piece in pieces:
        stream.feed(piece)
        lines += stream.take_lines()
    stream.finish()
    return lines + stream.take_lines()


@settings(max_examples=examples(60))
@given(divided(), st.integers(20, 200))
def test_lines_do_not_depend_on_how_the_text_was_divided(pieces: list[str], width: int) -> None:
    assert lines_of(pieces, width) == lines_of(["".join(pieces)], width)


@settings(max_examples=examples(40))
@given(divided(), st.integers(20, 200))
def test_a_terminal_shows_each_line_once(pieces: list[str], width: int) -> None:
    screen, stream = TerminalScreen(width), MarkdownStream(width)
    printer = LinePrinter(width, ColorSystem.STANDARD)
    for piece in pieces:
        stream.feed(piece)
        screen.write(printer.update(stream.take_lines(), stream.unfinished()))
    stream.finish()
    screen.write(printer.update(stream.take_lines(), stream.unfinished()))
    assert screen.rows == rows_of(lines_of(["".join(pieces)], width), width)


#: A model's text: whole words and closed marks.
_PROSE = st.sampled_from(
    (
        "a",
        "the",
        "lighthouse",
        "keeper",
        "of",
        "and",
        "walked",
        "**bold**",
        "*it*",
        "`code`",
        "[a link](https://e.org/a)",
        "snake_case",
        "it's",
        "(so)",
        "said:",
        "日本語です。",
        "well.",
    )
)
_PARAGRAPHS = st.builds(
    lambda start, words: start + " ".join(words),
    st.sampled_from(["", "", "", "- ", "1. ", "## ", "> "]),
    st.lists(_PROSE, min_size=12, max_size=30),
)
_CODE = st.just("```python\ndef f(x: int) -> str:\n    return str(x + 1)  # so\n```")
MODEL_TEXTS = st.lists(st.one_of(_PARAGRAPHS, _CODE), min_size=2, max_size=4).map("\n\n".join)


@settings(max_examples=examples(15))
@given(MODEL_TEXTS, st.integers(2, 8), st.integers(40, 200))
def test_little_more_is_written_than_the_styled_text(text: str, size: int, width: int) -> None:
    stream = MarkdownStream(width)
    printer = LinePrinter(width, ColorSystem.STANDARD)
    written = ""
    for at in range(0, len(text), size):
        stream.feed(text[at : at + size])
        written += printer.update(stream.take_lines(), stream.unfinished())
    stream.finish()
    written += printer.update(stream.take_lines(), stream.unfinished())
    styled = "".join(
        render_spans(line, ColorSystem.STANDARD) + "\r\n" for line in lines_of([text], width)
    )
    assert len(written.encode()) <= 1.5 * len(styled.encode())


@settings(max_examples=examples(20))
@given(MODEL_TEXTS, st.integers(1, 12), st.data())
def test_a_terminal_that_is_resized_shows_each_word_once(
    text: str, size: int, data: st.DataObject
) -> None:
    width = data.draw(st.integers(20, 200))
    stream, printer = MarkdownStream(width), LinePrinter(width, ColorSystem.STANDARD)
    screen = TerminalScreen(200)
    for at in range(0, len(text), size):
        if data.draw(st.integers(0, 15)) == 0:
            width = data.draw(st.integers(20, 200))
            stream.set_width(width)
            screen.write(printer.set_width(width))
        stream.feed(text[at : at + size])
        screen.write(printer.update(stream.take_lines(), stream.unfinished()))
    stream.finish()
    screen.write(printer.update(stream.take_lines(), stream.unfinished()))
    written = "".join("".join(screen.rows).split())
    whole = "".join("".join(rows_of(lines_of([text], 200), 200)).split())
    assert written.replace("│", "") == whole.replace("│", "")


@given(
    st.lists(
        _WORDS.filter(lambda word: "$" not in word and "(a*b" not in word), min_size=1, max_size=8
    )
)
@example(["lighthouse", *["https://e.org/p?q=1."] * 5])
def test_a_line_of_text_reads_as_commonmark_has_it(words: list[str]) -> None:
    text = "x " + " ".join(words)
    parser = MarkdownIt("js-default", {"html": False, "linkify": False})
    children = parser.parseInline(text)[0].children or []
    expected = "".join(
        one.content if one.type != "image" else f"[image: {one.content}]"
        for one in children
        if one.type in {"text", "code_inline", "image"}
    )
    # However wide the terminal is, text is wrapped where lines are long to read: wide letters also
    # where they have no space.
    shown = "".join(map(line_text, lines_of([text], 10_000)))
    assert "".join(shown.split()) == "".join(expected.split())


@given(st.text())
def test_no_text_steers_the_terminal(text: str) -> None:
    stream, printer = MarkdownStream(60), LinePrinter(60, None)
    stream.feed(text)
    stream.finish()
    written = printer.update(stream.take_lines(), stream.unfinished())
    assert not [
        char for char in written.replace("\r\n", "") if char < " " or "\x7f" <= char < "\xa0"
    ]


@given(st.text(alphabet="[](x)<\x1b\x07\u009b\\;"))
def test_a_link_cannot_end_its_escape_sequence(address: str) -> None:
    lines = lines_of([f"[a](https://e.org/{address}) <https://e.org/{address}>"], 80)
    links = [span.link for line in lines for span in line if span.link]
    assert all(link.isprintable() and link.isascii() for link in links)


SHOWN = """\
Title

A **bold** word, `code` and a [link](https://e.org).
* one
* two
  1. inner
- [x] done

> quoted
> - item
```sh
ls -l   | wc
```
| a | b |
|--|-:|
| 1 | 22 |
---
end"""


def test_blocks_as_a_terminal_shows_them() -> None:
    rows = rows_of(lines_of(["# " + SHOWN], 60), 60)
    assert rows == [
        "Title",
        "",
        "A bold word, code and a link.",
        "• one",
        "• two",
        "  1. inner",
        "☑ done",
        "",
        "│ quoted",
        "│ • item",
        "",
        "ls -l   | wc",
        "",
        "a   │   b",
        "────┼────",
        "1   │  22",
        "",
        "─" * 59,
        "",
        "end",
    ]


def test_a_long_table_is_shown_in_pieces() -> None:
    stream = MarkdownStream(60)
    stream.feed("| n | square |\n|---|---|\n" + "| 1 | 1 |\n" * 39)
    assert stream.take_lines() == []
    assert line_text(stream.unfinished()) == "… a table, 39 rows"
    stream.feed("| 40 | 1600 |\n")
    assert len(stream.take_lines()) == 42
    stream.feed("| 41 | 1681 and more |\n")
    assert [line_text(line) for line in stream.take_lines()] == [
        "41  │ 1681",
        "    │ and",
        "    │ more",
    ]


def test_marks_are_shown_without_colours() -> None:
    stream = MarkdownStream(60, shows_marks=True)
    stream.feed("a `b`\n```py\nc\n```")
    stream.finish()
    assert [line_text(line) for line in stream.take_lines()] == ["a `b`", "", "```py", "c", "```"]


def test_a_table_without_colours_shows_marks_and_where_links_lead() -> None:
    stream = MarkdownStream(60, shows_marks=True)
    stream.feed("| `a` | b |\n|---|---|\n| [x](https://e.org) | `y` |\n")
    stream.finish()
    assert [line_text(line) for line in stream.take_lines()] == [
        "`a`               │ b",
        "──────────────────┼────",
        "x (https://e.org) │ `y`",
    ]


def test_a_word_cut_by_a_resize_is_gone_on_with_where_it_moves_to() -> None:
    stream, printer = MarkdownStream(16), LinePrinter(16, None)
    screen = TerminalScreen(40)
    stream.feed("one two snake")
    screen.write(printer.update(stream.take_lines(), stream.unfinished()))
    stream.set_width(10)
    screen.write(printer.set_width(10))
    stream.feed("_case and")
    stream.finish()
    screen.write(printer.update(stream.take_lines(), stream.unfinished()))
    assert "".join(screen.rows).split() == ["one", "two", "snake_case", "and"]


def test_a_terminal_without_colours_shows_where_links_lead() -> None:
    stream = MarkdownStream(100, shows_marks=True)
    for piece in ("[the **do", "cs**](https://docs.y/z), https://a.b/c, ", "<q@r.st>\n"):
        stream.feed(piece)
    stream.finish()
    shown = [line_text(line) for line in stream.take_lines()]
    assert shown == ["the docs (https://docs.y/z), https://a.b/c, q@r.st"]
