"""MCP errors: server unavailable, server error; and ``SecretRedactor``, which redacts
credentials.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.core.secrets import secret_pattern
from antiphon.tools.tool_outputs import replace_surrogates

_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: Shorter secrets occur within ordinary words, and are not redacted.
_MIN_SECRET_LENGTH = 8
_REPLACEMENT = "[hidden]"


class McpServerUnavailableError(Exception):
    """A server cannot be reached, or no longer. The message continues ``... because``.

    ``retryable``: the request cannot have had an effect, so it may be sent again.
    """

    def __init__(self, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.retryable = retryable


class McpServerError(Exception):
    """The server answered with an error of the protocol; the message is its own, cleaned."""


class SecretRedactor:
    """Redacts a server's URL, headers and environment from the texts that it sends.

    Some servers repeat their key in errors: from there it would get into the store, to the
    model, and to the tools of other servers.
    """

    def __init__(self, server: McpServerConfig) -> None:
        needles = {secret.reveal() for secret in (*server.headers.values(), *server.env.values())}
        needles |= {word for needle in needles for word in needle.split()}
        if server.url is not None and (query := urlsplit(server.url.reveal()).query):
            needles |= {server.url.reveal(), query, *(value for _, value in parse_qsl(query))}
        self._secret_pattern = secret_pattern(
            one for one in needles if len(one) >= _MIN_SECRET_LENGTH
        )

    def redact(self, text: str) -> str:
        """The text without secrets, and with what no text has replaced: control characters,
        which a terminal would obey, and halves of surrogate pairs.
        """
        text = replace_surrogates(_CONTROL_CHARACTERS.sub("\ufffd", text))
        return self._secret_pattern.sub(_REPLACEMENT, text)
