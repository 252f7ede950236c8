"""Code blocks: finds the fenced code in a Markdown text, to copy or to print it. Pure."""

from __future__ import annotations

import re

_OPENING = re.compile(r" *(`{3,}|~{3,})([^`]*)$")


def code_blocks(text: str) -> list[str]:
    """The code blocks of a Markdown text, each with its line ends.

    A block that was cut off before its fence is one, too.
    """
    blocks: list[str] = []
    mark: str | None = None
    for line in text.splitlines(keepends=True):
        if mark is not None:
            stripped = line.strip()
            if stripped.startswith(mark) and not stripped.strip(mark[0]):
                mark = None
            else:
                blocks[-1] += line
        elif found := _OPENING.match(line.rstrip("\n")):
            mark = found[1]
            blocks.append("")
    return blocks
