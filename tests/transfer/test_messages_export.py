"""Export as JSON and Markdown: message text cannot break the page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from antiphon.chat.message_import import import_messages
from antiphon.transfer.messages_export import as_json, as_markdown
from support.example_counts import examples

CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be *kind*."},
    {
        "role": "user",
        "name": "al_ice",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4096}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a b.png"}},
        ],
    },
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "look_up", "arguments": '{"word":"Füße","digits":1.10}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "```\nfeet\n```"},
    {"role": "assistant", "content": "### Steps\n\n1. *Feet*\n\n---\n\n```py\n# code\n<b>\n```"},
]

PAGE = """\
# A \\*chat\\*

## System

Be *kind*.

## You (al\\_ice)

What is this?

*(image: image/png, 3 KiB)*

![image](<https://example.com/a%20b.png>)

## Assistant

Calls `look_up`:

```json
{
  "word": "Füße",
  "digits": 1.10
}
```

## Result of `look_up`

````
```
feet
```
````

## Assistant

### Steps

1. *Feet*

---

```py
# code
<b>
```
"""


def test_markdown_page() -> None:
    assert as_markdown(CONVERSATION, "A *chat*\n") == PAGE
    assert as_markdown(CONVERSATION) == PAGE.partition("\n\n")[2]


def test_json_round_trips() -> None:
    text = as_json(CONVERSATION)
    assert json.loads(text) == CONVERSATION
    assert import_messages(json.loads(text)) == import_messages(CONVERSATION)
    assert "Füße" in text
    assert text.startswith('[\n  {\n    "role": "system"')
    assert text.endswith("]\n")


def body(text: str) -> str:
    return as_markdown([{"role": "user", "content": text}]).removeprefix("## You\n\n")[:-1]


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "### Third\n\n#### Fourth",
        "one\n\n---\n\ntwo",
        "- a\n- b\n\n  ```\n  # code\n  ```",
        "```\n# comment\n<b>\n```",
        "~~~~ js\n~~~\n```\n## You\n~~~~",
        "a `<b>` and ``List<`int`>`` and <https://example.com> and 1 < 2",
        "#hashtag",
        "> ## You",
    ],
)
def test_harmless_markdown_is_unchanged(text: str) -> None:
    assert body(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "# You",
        "## You",
        "   ##",
        "Title\n===",
        "You\n-",
        "```\nnever ends",
        "~~~\n```",
        "```` py\n```",
        "<!-- never ends",
        "<details>",
        "some `code` and <b>",
        "a `b\n` <details> ` c",
        "\\` <details> `",
        "- a\n\n  ```\n# You\n  ```",
    ],
)
def test_markdown_that_could_break_the_page_is_quoted(text: str) -> None:
    assert body(text) == "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def test_blank_lines_around_text_are_removed() -> None:
    assert body("\n \n  a\n\nb\r\n\r\n") == "  a\n\nb"
    for nothing in ("", " \n", None):
        assert "*(nothing)*" in as_markdown([{"role": "assistant", "content": nothing}])


def test_calls_and_results_are_code_blocks() -> None:
    page = as_markdown(
        [
            {
                "role": "assistant",
                "content": "Wait.",
                "tool_calls": [
                    {"id": "a", "function": {"name": "a`b", "arguments": '{"cut'}},
                    {"id": "b", "function": {"name": "c", "arguments": "`````"}},
                ],
            },
            {"role": "tool", "tool_call_id": "b", "content": ""},
            {"role": "tool", "tool_call_id": "z", "content": "[1]"},
        ]
    )
    assert page == (
        '## Assistant\n\nWait.\n\nCalls `` a`b ``:\n\n```\n{"cut\n```\n\n'
        "Calls `c`:\n\n``````\n`````\n``````\n\n"
        "## Result of `c`\n\n*(nothing)*\n\n## Result\n\n```json\n[\n  1\n]\n```\n"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("data:image/gif;base64,AAAA", "*(image: image/gif, 3 bytes)*"),
        ("data:image/gif;base64,AA==", "*(image: image/gif, 1 bytes)*"),
        ("DATA:image/webp;base64," + "A" * 4_000_000, "*(image: image/webp, 2.9 MiB)*"),
        ("data:,", "*(image: of no type, 0 bytes)*"),
        ("https://x.org/?a=<b>\\", "![image](<https://x.org/?a=%3Cb%3E%5C>)"),
        ("javascript:alert(1)", "*(image: `javascript:alert(1)`)*"),
    ],
)
def test_images_are_links_or_descriptions(url: str, shown: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    for role in ("user", "tool"):
        page = as_markdown([{"role": role, "content": [part]}])
        assert page.endswith(f"\n\n{shown}\n")


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"type": "file", "file": {"filename": "a.pdf"}}, "*(file)*"),
        ({"type": "input_audio", "input_audio": {}}, "*(input audio)*"),
        ({"type": "video_url", "video_url": {}}, "*(video url)*"),
    ],
)
def test_other_parts_are_named(part: dict[str, Any], shown: str) -> None:
    page = as_markdown([{"role": "user", "content": [part]}])
    assert page.endswith(f"\n\n{shown}\n")


LINES = [
    *("", "", "# You", "## You", "  ## You", "===", "---", "-", "text", "    code", "\t# tab"),
    *("```", "  ```", "   ```", "    ```", "~~~", "````", "``` py", "~~~ `x`", "``` `x`"),
    *("- item", "- ```", "-", "  more", "1. item", "   # You", "   more", "> quote", "> ```", ">"),
    *("<!--", "-->", "<details>", "</details>", "<b>", "a `<b>", "`", "`x` <i>", "``", "\\`"),
    *("| a |", "|---|", "[a]: b", "[a", "](x)", "$$", "***", "* * *", "\u2028## You", "# \r## You"),
]
parser = MarkdownIt("commonmark")


@settings(deadline=None, max_examples=examples(60))
@given(st.lists(st.lists(st.sampled_from(LINES), max_size=8).map("\n".join), max_size=4))
def test_no_text_can_break_the_page(texts: list[str]) -> None:
    roles = ["user", "assistant", "tool"]
    messages = [{"role": roles[n % 3], "content": one} for n, one in enumerate(texts)]
    speakers = ["You", "Assistant", "Result"]
    tokens = parser.parse(as_markdown(messages, "Title"))
    headings = [
        (token.tag, tokens[position + 1].content)
        for position, token in enumerate(tokens)
        if token.type == "heading_open" and token.level == 0 and token.tag in {"h1", "h2"}
    ]
    assert headings == [("h1", "Title")] + [("h2", speakers[n % 3]) for n in range(len(texts))]
    depth = 0
    for token in tokens:
        depth += {"blockquote_open": 1, "blockquote_close": -1}.get(token.type, 0)
        inside = [token, *(token.children or ())]
        assert depth or not any(one.type in {"html_block", "html_inline"} for one in inside)


@settings(deadline=None)
@given(st.text(), st.text())
def test_names_and_titles_are_one_line_of_text(title: str, name: str) -> None:
    page = as_markdown([{"role": "user", "name": name, "content": "x"}], title)
    tokens = parser.parse(page)
    assert [one.tag for one in tokens if one.type == "heading_open"][-1] == "h2"
    assert not any(
        child.type not in {"text", "text_special"} for one in tokens for child in one.children or ()
    )


@given(st.lists(st.text(alphabet="`~ x\n", max_size=20), max_size=3))
def test_tool_result_is_one_code_block(results: list[str]) -> None:
    page = as_markdown([{"role": "tool", "content": one} for one in results])
    fences = [token.content for token in parser.parse(page) if token.type == "fence"]
    assert fences == [one + "\n" for one in results if one.strip()]
