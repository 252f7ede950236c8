"""Hostile strings: markup, addresses and odd characters that a page must show as text."""

from __future__ import annotations

from typing import Final

_RUN = "document.title='run'"
_TAGS: Final = (
    "<script>{run}</script>",
    "<img src=x onerror={run}>",
    "<img src=//evil.example/p.png>",
    "<svg onload={run}>",
    "<svg><script>{run}</script></svg>",
    "<iframe src='javascript:{run}'></iframe>",
    "<iframe srcdoc='<script>{run}</script>'></iframe>",
    "<object data='data:text/html,<script>{run}</script>'></object>",
    "<embed src='//evil.example/x.swf'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css'</style>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    "<form action=//evil.example/><button>x</button></form>",
    "<a href='javascript:{run}'>x</a>",
    "<body onload={run}>",
    "<video><source onerror={run}></video>",
    "<audio src=x onerror={run}>",
    "<details open ontoggle={run}>",
    "<input autofocus onfocus={run}>",
    "<marquee onstart={run}>",
    "<math><mtext><table><mglyph><style><img src=x onerror={run}>",
    "<template><script>{run}</script></template>",
    "<noscript><p title='</noscript><img src=x onerror={run}>'>",
    "</textarea><script>{run}</script>",
    "</title><script>{run}</script>",
    "--><script>{run}</script>",
    "<!--<img src='--><img src=x onerror={run}>'>",
    "<![CDATA[<script>{run}</script>]]>",
    "<x onclick={run}>",
)
_LINKS: Final = (
    "[x]({address})",
    "![x]({address})",
    "<{address}>",
    "[x][r]\n\n[r]: {address}",
    '[x]({address} "title")',
)
_ADDRESSES: Final = (
    "javascript:{run}",
    "JaVaScRiPt:{run}",
    "java\tscript:{run}",
    "javascript&colon;{run}",
    "&#106;avascript:{run}",
    "&#x6A;avascript:{run}",
    "\x01javascript:{run}",
    "vbscript:{run}",
    "data:text/html,<script>{run}</script>",
    "data:image/svg+xml,<svg onload={run}>",
    "file:///etc/passwd",
    "//evil.example/p.png",
    "https://evil.example/p.png",
    "blob:https://evil.example/1",
    "http://evil.example/%22onmouseover=%22{run}",
)
_WRAPPINGS: Final = (
    "{one}",
    "**{one}**",
    "# {one}",
    "- {one}",
    "> {one}",
    "| {one} |\n|---|\n| {one} |",
)
_OTHERS: Final = (
    "\u202emoc.live",
    "\x00\x01\x02",
    "\ud7ff\ue000\ufffe",
    "{{constructor.constructor('x')()}}",
    "${alert(1)}",
    "' OR 1=1 --",
    "../../etc/passwd",
    "$\\href{javascript:alert(1)}{x}$",
    "$\\includegraphics{https://evil.example/p.png}$",
    "$\\htmlStyle{background:url(//evil.example)}{x}$",
    "$\\def\\a{\\a\\a}\\a$",
    "```<script>alert(1)</script>\ncode\n```",
    "```js\n</code></pre><script>alert(1)</script>\n```",
    "`<img src=x onerror=alert(1)>`",
    "a" * 5_000,
    "[" * 500 + "x" + "]" * 500,
    "*" * 2_000,
    "> " * 200 + "x",
    "__proto__",
    "constructor",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&amp;lt;img src=x onerror=alert(1)&amp;gt;",
    "😀\u200d🔥\ufe0f",
)


def _hostile() -> list[str]:
    tags = [tag.replace("{run}", _RUN) for tag in _TAGS]
    links = [
        link.replace("{address}", address.replace("{run}", _RUN))
        for link in _LINKS
        for address in _ADDRESSES
    ]
    wrapped = [wrapping.replace("{one}", tag) for wrapping in _WRAPPINGS for tag in tags]
    return list(dict.fromkeys([*wrapped, *links, *_OTHERS]))


HOSTILE: Final = _hostile()
