"""Markdown becomes elements without markup: the same whole and streamed, and nothing hostile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from support.browser import until, watched
from support.example_counts import examples
from support.hostile_strings import HOSTILE
from support.http_server import serving

_LOAD = """
async () => {
  const base = document.querySelector('script[type=module]').src.replace('app.js', '');
  const { renderMarkdown, MarkdownStream, PART } = await import(base + 'markdown.js');
  const { finishWork } = await import(base + 'work_queue.js');
  window.limit = (long, blocks, characters) => {
    MarkdownStream.LONG = long;
    Object.assign(PART, { blocks, characters });
  };
  window.whole = (text) => {
    const into = document.createElement('div');
    renderMarkdown(text, into);
    finishWork(into);
    return into;
  };
  window.streamed = (pieces) => {
    const into = document.createElement('div');
    const stream = new MarkdownStream(into);
    let text = '';
    for (const piece of pieces) stream.update(text += piece);
    stream.finish(text);
    finishWork(into);
    return into;
  };
}
"""


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with serving() as server, watched(browser, server.url) as watching:
        watching.allowed = ("404", "hljs")
        opened = watching.open()
        opened.evaluate(_LOAD)
        yield opened


def html_of(page: Page, text: str) -> str:
    """The elements of a text; that each is written from its own side is another test's."""
    made: str = page.evaluate("(text) => whole(text).innerHTML", text)
    return made.replace(' dir="auto"', "")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Plain *words* and **more**.", "<p>Plain <em>words</em> and <strong>more</strong>.</p>"),
        ("# One", "<h3>One</h3>"),
        ("## A\n#### B\n## C", "<h3>A</h3><h4>B</h4><h3>C</h3>"),
        ("a\nb", "<p>a<br>b</p>"),
        ("- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("> q", "<blockquote><p>q</p></blockquote>"),
        ("`a<b`", "<p><code>a&lt;b</code></p>"),
        ("5 &lt; 6 &copy; &#65;", "<p>5 &lt; 6 © A</p>"),
        ("<b>bold</b>", "<p>&lt;b&gt;bold&lt;/b&gt;</p>"),
        ("<script>alert(1)</script>", '<p class="plain">&lt;script&gt;alert(1)&lt;/script&gt;</p>'),
        ("It costs $5 and $10.", "<p>It costs $5 and $10.</p>"),
        ("[x](javascript:alert(1))", '<p><span class="no-link">x</span></p>'),
        (
            "![beacon](https://evil.example/p.png)",
            '<p><a href="https://evil.example/p.png" target="_blank" rel="noopener noreferrer"'
            ' class="remote-picture">beacon (picture at evil.example)</a></p>',
        ),
        ("- [x] done", None),
        ("| a | b |\n|---|--:|\n| 1 | 2 |", None),
    ],
)
def test_markdown_becomes_elements(page: Page, text: str, made: str | None) -> None:
    html = html_of(page, text)
    if made is not None:
        assert html == made
    else:
        assert "undefined" not in html
        assert ("<table>" in html) or ('type="checkbox"' in html)


@pytest.mark.parametrize("text", ["$x^2$", r"\(x^2\)", "$$\nx^2\n$$", r"\[x^2\]", "a $$x^2$$ b"])
def test_maths_is_typeset_when_it_is_first_seen(page: Page, text: str) -> None:
    page.evaluate("(text) => { document.body.append(window.shown = whole(text)) }", text)
    until(page, "!!window.shown.querySelector('.katex')")
    page.evaluate("window.shown.remove()")


def test_code_is_coloured_when_it_is_first_seen(page: Page) -> None:
    text = "```python\ndef f(x): return 'a' + 1\n```"
    page.evaluate("(text) => { document.body.append(window.shown = whole(text)) }", text)
    until(page, "!!window.shown.querySelector('.hljs-keyword')")
    assert page.evaluate("window.shown.querySelector('code').textContent") == (
        "def f(x): return 'a' + 1"
    )
    page.evaluate("window.shown.remove()")


def test_each_block_is_written_from_the_side_of_its_own_words(page: Page) -> None:
    arabic, hebrew = "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd"
    text = f"# {arabic}\n\n{hebrew} `code`\n\nHello\n\n- {arabic}\n\n```\nx\n```"
    sides = page.evaluate(
        """(text) => {
          const made = whole(text);
          document.body.append(made);
          const seen = [...made.children].map((one) => getComputedStyle(one).direction);
          made.remove();
          return seen;
        }""",
        text,
    )
    assert sides == ["rtl", "rtl", "ltr", "rtl", "ltr"]


def test_quote_and_list_of_paragraphs_are_written_from_the_side_of_their_words(page: Page) -> None:
    arabic = "\u0645\u0631\u062d\u0628\u0627"
    text = f"> {arabic}\n\n- {arabic}\n\n- {arabic}\n\n> - {arabic}\n\n> Hello\n\n1. Hello"
    sides = page.evaluate(
        """(text) => {
          const made = whole(text);
          document.body.append(made);
          const all = [...made.querySelectorAll("*")];
          const seen = all.map((one) => getComputedStyle(one).direction);
          made.remove();
          return seen;
        }""",
        text,
    )
    assert sides == ["rtl"] * 10 + ["ltr"] * 4


_BLOCKS = st.sampled_from(
    [
        "Some *emphasis* and `code`.",
        "# Heading",
        "### Deep heading",
        "- one\n- two\n  - three",
        "- one\n- two\n- three\n- four\n\n- five\n- six",
        "1. one\n\n   more\n2. two",
        "```python\nprint('x')\n\n# y\n```",
        "~~~\nplain\n~~~",
        "```\nnever ends",
        "> quoted\n> lines\n\n> again",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n| 7 | 8 |",
        "$$\n\\frac{1}{2}\n$$",
        "[a link][ref] and <b>html</b>",
        "[ref]: https://example.org/",
        "---",
        "Setext\n======",
        "    indented code",
        "- [x] done\n- [ ] open",
        "line one\nline two",
    ]
)


@settings(max_examples=examples(25))
@given(
    st.lists(_BLOCKS, min_size=1, max_size=8),
    st.sampled_from(["\n", "\n\n"]),
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
    st.tuples(
        st.sampled_from([10, 3000]), st.sampled_from([1, 2, 24]), st.sampled_from([20, 4000])
    ),
)
def test_a_streamed_text_ends_as_the_whole_one(
    page: Page, blocks: list[str], between: str, sizes: list[int], limits: tuple[int, int, int]
) -> None:
    text = between.join(blocks)
    pieces, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        pieces.append(text[at : at + size])
        at, turn = at + size, turn + 1
    seen: dict[str, Any] = page.evaluate(
        """([text, pieces, ...limits]) => {
          limit(...limits);
          const plain = (node) => node.textContent.replaceAll('Copy', '');
          const tags = (node) => [...node.querySelectorAll('*:not(.part)')]
            .map((one) => one.tagName).filter((one) => one !== 'SPAN').join(' ');
          const [one, two] = [whole(text), streamed(pieces)];
          limit(3000, 24, 4000);
          return { texts: [plain(one), plain(two)], tags: [tags(one), tags(two)] };
        }""",
        [text, pieces, *limits],
    )
    assert seen["texts"][0].split() == seen["texts"][1].split()
    assert seen["tags"][0] == seen["tags"][1]


@pytest.mark.parametrize("entry", ["- an entry\n", "1. an entry\n", "| a | b |\n"])
def test_a_long_list_grows_by_its_entries(page: Page, entry: str) -> None:
    head = "| a | b |\n|---|---|\n" if entry.startswith("|") else ""
    kept = page.evaluate(
        """([head, entry]) => {
          const base = document.querySelector('script[type=module]').src.replace('app.js', '');
          return import(base + 'markdown.js').then(({ MarkdownStream }) => {
            const into = document.createElement('div');
            const stream = new MarkdownStream(into);
            let text = head;
            for (let n = 0; n < 500; n++) stream.update(text += entry);
            const first = into.querySelector('li, td');
            for (let n = 0; n < 500; n++) stream.update(text += entry);
            stream.update(text += '\\nAfter it.\\n\\nMore.');
            const same = first === into.querySelector('li, td');
            const last = [...into.querySelectorAll('p')].at(-1).textContent;
            return [same, into.querySelectorAll('li, tbody tr').length, last];
          });
        }""",
        [head, entry],
    )
    assert kept == [True, 1000, "More."]


def test_an_update_of_a_long_answer_makes_as_few_elements_as_one_of_a_short(page: Page) -> None:
    made = page.evaluate(
        """async () => {
          const base = document.querySelector('script[type=module]').src.replace('app.js', '');
          const { MarkdownStream } = await import(base + 'markdown.js');
          const into = document.body.appendChild(document.createElement('div'));
          const stream = new MarkdownStream(into);
          const words = 'Some *words* of a `text`. '.repeat(10);
          const section = `## Words\\n\\n${words}\\n\\n- a\\n- b\\n\\n`;
          const whole = section.repeat(300);
          let count = 0;
          const observer = new MutationObserver((records) => {
            for (const node of records.flatMap(({ addedNodes }) => [...addedNodes]))
              count += 1 + (node.querySelectorAll?.('*').length ?? 0);
          });
          observer.observe(into, { childList: true, subtree: true });
          const counts = [];
          for (let at = 0; at < whole.length; at += 300) {
            stream.update(whole.slice(0, at));
            await Promise.resolve();
            counts.push(count);
            count = 0;
          }
          observer.disconnect();
          into.remove();
          const sum = (some) => some.reduce((one, other) => one + other, 0);
          return [whole.length, sum(counts.slice(0, 50)), sum(counts.slice(-50))];
        }"""
    )
    length, first, last = made
    assert length > 80_000
    assert 0 < last <= first * 1.2


def test_a_line_of_code_is_shown_while_it_is_written_unless_it_may_end_the_code(page: Page) -> None:
    shown = page.evaluate(
        """() => {
          const base = document.querySelector('script[type=module]').src.replace('app.js', '');
          return import(base + 'markdown.js').then(({ MarkdownStream }) => {
            const into = document.createElement('div');
            const stream = new MarkdownStream(into);
            let text = '';
            const pieces = ['```js\\n', 'let a', ' = 1', ';\\nlet', '\\n', '``', '`', '\\nAfter'];
            return pieces.map((more) => {
              stream.update(text += more);
              return into.querySelector('code').textContent;
            });
          });
        }"""
    )
    both = "let a = 1;\nlet"
    assert shown == ["", "let a", "let a = 1", both, both, both, both, both]


def test_settled_blocks_keep_their_elements(page: Page) -> None:
    same = page.evaluate(
        """() => {
          const into = document.createElement('div');
          document.body.append(into);
          const base = document.querySelector('script[type=module]').src.replace('app.js', '');
          return import(base + 'markdown.js').then(({ MarkdownStream }) => {
            const stream = new MarkdownStream(into);
            let text = '';
            const add = (more) => stream.update(text += more);
            add('First paragraph.\\n\\nSecond one.\\n\\nThird');
            const first = into.firstChild;
            getSelection().selectAllChildren(first);
            for (let index = 0; index < 200; index++) add(` word ${index}.\\n\\n`);
            add('```js\\nlet a = 1;\\n```\\n\\nLast');
            const before = [...into.children].slice(0, 3);
            stream.finish(text);
            const after = [...into.children].slice(0, 3);
            const selected = getSelection().toString();
            into.remove();
            const kept = before.every((one, index) => one === after[index]);
            return [first === before[0], kept, selected];
          });
        }"""
    )
    assert same == [True, True, "First paragraph."]


#: What no text may become.
_BAD = """
    script, img:not([src^="data:image/png"]), svg:not(.katex svg), iframe, object, embed, form,
    link, style, base, meta, video, audio, template, details, a[href^="javascript" i],
    a[href^="data" i], a[href^="file" i], a[href^="blob" i], [onerror], [onload], [onclick],
    [srcdoc], [style]:not(.katex *)
"""


def test_no_hostile_text_becomes_an_element_or_a_request(page: Page) -> None:
    assert len(HOSTILE) >= 200
    found = page.evaluate(
        """([texts, bad]) => texts.flatMap((text) => [whole(text), streamed([...text])]
          .flatMap((made) => {
            document.body.append(made);
            const seen = [...made.querySelectorAll(bad)].map((one) => one.outerHTML);
            made.remove();
            return seen;
          }))""",
        [HOSTILE, _BAD],
    )
    assert found == []
    assert page.title() == "antiphon"
