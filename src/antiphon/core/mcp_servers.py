"""MCP servers: those of the configuration, and those that a request names."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from antiphon.core.secrets import Secret

#: Which tools a person has to agree to: all, none, or those named.
ApprovalPolicy: TypeAlias = Literal["always", "never"] | tuple[str, ...]

#: Lengths in characters of a label: it is the beginning of its tools' names.
MAX_LABEL_LENGTH = 40
#: What stands between a label and the name of a tool.
NAME_SEPARATOR = "__"


class McpServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A server of the configuration: a program to run (``command``), or a ``url``.

    ``env`` are variables for the program besides the usual ones (PATH, HOME and such),
    ``folder`` is where it runs. ``headers`` go with each request to ``url``.
    ``allowed_tools`` None: all. ``require_approval`` None: as the request says. ``timeout``
    is in seconds, for one call, None: no limit.
    """

    label: str
    command: tuple[str, ...] = ()
    url: Secret | None = None
    headers: dict[str, Secret] = {}
    env: dict[str, Secret] = {}
    folder: Path | None = None
    allowed_tools: tuple[str, ...] | None = None
    require_approval: ApprovalPolicy | None = None
    timeout: float | None = 60.0


class McpServerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for: a server by its URL, or one of the configuration by its label.

    It holds what the server is reached with, so it lives as long as the turn and is kept
    nowhere; what is kept of it is ``core.turns.McpTool``. ``param`` is where it stands in
    the request, such as ``tools[0]``. ``allowed_tools`` None: all. ``require_approval``
    None: as the configuration says, else "always"; ``exempt`` tools need no agreement even
    then.
    """

    label: str
    param: str = "tools"
    url: Secret | None = None
    headers: dict[str, Secret] = {}
    allowed_tools: tuple[str, ...] | None = None
    require_approval: ApprovalPolicy | None = None
    exempt: tuple[str, ...] = ()


def tool_name_without_label(label: str, name: str) -> str:
    """The tool's part of a name that the model called: ``files``, ``files__read`` is ``read``."""
    return name[len(label) + len(NAME_SEPARATOR) :]
