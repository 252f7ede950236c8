"""Markdown as HTML that holds nothing active: for exported and shared pages. Pure.

HTML in a text is shown as text. Links lead to http, https and mail addresses only. An image from
elsewhere becomes a link, so that opening a page asks nobody for anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

#: A longer text is shown as it is: some texts take Markdown a time that grows with their square.
MAX_MARKDOWN_LENGTH: Final = 100_000
#: Longer code is not coloured.
_MAX_CODE_LENGTH: Final = 50_000
_LINK: Final = re.compile(r"(?:https?|mailto):", re.IGNORECASE)
_IMAGE: Final = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+\Z")
#: All control characters but tabs and ends of lines.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LANGUAGE: Final = re.compile(r"[A-Za-z0-9_+#.-]{1,30}")
_HEADING: Final = re.compile(r"h([1-6])")


def markdown_html(text: str) -> str:
    """A text in Markdown as HTML; its headings begin at the third level."""
    text = visible(text)
    if len(text) > MAX_MARKDOWN_LENGTH:
        return plain_html(text)
    html: str = _markdown().render(text)
    return html


def plain_html(text: str) -> str:
    """A text as it is, its lines kept."""
    return f'<pre class="plain">{escape(visible(text))}</pre>\n'


def code_html(text: str, language: str = "") -> str:
    """A text as code, coloured where the language is known."""
    text = visible(text)
    return f"<pre><code>{_coloured(text, language)}</code></pre>\n"


def line_html(text: str) -> str:
    """A text on one line, as text."""
    return escape(visible(" ".join(text.split())))


def visible(text: str) -> str:
    """A text with a picture of each control character in its place."""
    return _CONTROL.sub(_symbol_of, text.replace("\r\n", "\n").replace("\r", "\n"))


def _symbol_of(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def _coloured(text: str, language: str) -> str:
    name = _LANGUAGE.match(language)
    if name is None or len(text) > _MAX_CODE_LENGTH:
        return escape(text)
    from pygments import highlight  # loaded on first use
    from pygments.formatters.html import HtmlFormatter  # loaded on first use
    from pygments.lexers import get_lexer_by_name  # loaded on first use
    from pygments.util import ClassNotFound  # loaded on first use

    try:
        lexer = get_lexer_by_name(name[0], stripnl=False)
    except ClassNotFound:
        return escape(text)
    html: str = highlight(text, lexer, HtmlFormatter(nowrap=True))
    return html


@cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
    markdown.enable(["table", "strikethrough"])
    markdown.validateLink = _is_link  # type: ignore[method-assign]
    return markdown


def _is_link(url: str) -> bool:
    return bool(_LINK.match(url.strip()) or _IMAGE.match(url.strip()))


class _Renderer(RendererHTML):
    """markdown-it's renderer, with headings below those of the page, and without remote images."""

    def heading_open(
        self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType
    ) -> str:
        return f"<{_lowered(tokens[at].tag)}>"

    def heading_close(
        self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType
    ) -> str:
        return f"</{_lowered(tokens[at].tag)}>\n"

    def link_open(
        self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType
    ) -> str:
        url = str(tokens[at].attrGet("href") or "")
        # An image's address is no place to go to.
        if not _LINK.match(url):
            return "<a>"
        return f'<a href="{escape(url)}" rel="noopener noreferrer nofollow">'

    def image(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[at]
        url = str(token.attrGet("src") or "")
        words = self.renderInlineAsText(token.children or [], options, env)
        if _IMAGE.match(url):
            return f'<img src="{escape(url)}" alt="{escape(words)}">'
        link = f'<a href="{escape(url)}" rel="noopener noreferrer nofollow">'
        return f"{link}{escape(words) or 'image'}</a>"

    def fence(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[at]
        return code_html(token.content, token.info.strip())

    def table_open(
        self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType
    ) -> str:
        return '<div class="scroll"><table>\n'

    def table_close(
        self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType
    ) -> str:
        return "</table></div>\n"

    def th_open(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        return _cell("th", tokens[at])

    def td_open(self, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        return _cell("td", tokens[at])


def _cell(tag: str, token: Token) -> str:
    """A cell's tag, with its column's alignment by a class: an inline style is not allowed."""
    alignment = str(token.attrGet("style") or "").removeprefix("text-align:")
    return f'<{tag} class="{alignment}">' if alignment in {"right", "center"} else f"<{tag}>"


def _lowered(tag: str) -> str:
    """A heading's tag two levels below."""
    found = _HEADING.match(tag)
    return f"h{min(6, int(found[1]) + 2)}" if found else tag
