"""Tool names: finds the offered tool in what a model or a server writes for its name. Pure.

Models put the namespace of their template before a name, or markup behind it, and servers number
calls in it. A name is only changed into one that was offered, and never one that was offered.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

#: What stands before and behind a name: recipients, namespaces, markup, parentheses, numbers.
_PREFIX: Final = re.compile(
    r"\A(?:[\w ]*\bto=)?(?:(?:functions|default_api|tools|api|function)[.:/])?"
)
_END: Final = re.compile(r"(?:<\|.*|\(\)|:\d*)\Z", re.DOTALL)
_QUOTES: Final = "\"'` "


def known_name(name: str, tool_names: Collection[str]) -> str:
    """The name of a tool that is meant by a name; the name itself, if there is none."""
    if name in tool_names or not tool_names:
        return name
    plain = _END.sub("", name.strip(_QUOTES))
    names = (plain, _PREFIX.sub("", plain), plain.split("<|")[0])
    return next((one for one in names if one in tool_names), name)
