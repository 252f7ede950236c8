"""The MCP client: the line limit of stdio servers, and output that is not the protocol."""

from __future__ import annotations

import asyncio
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import JSONRPCNotification

from antiphon.core.mcp_servers import McpServerConfig
from antiphon.errors import ToolServerUnavailableError
from antiphon.tools.mcp import client
from antiphon.tools.mcp.client import LINE_ENCODING, LineDecoder, is_too_long
from support.mcp_toolsets import call, error_message, gateway, open_toolset, stdio_config

LIMIT = 8
FLOOD = "import os\nwhile True: os.write(1, b'x' * 65536)"


def decode_lines(chunks: list[bytes]) -> str:
    lines = LineDecoder()
    return "".join(lines.decode(chunk) for chunk in chunks)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9)), st.data())
def test_lines_are_decoded_whole_for_any_chunks(decoded: list[str], data: st.DataObject) -> None:
    text = "".join(f"{line}\n" for line in decoded)
    encoded = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=9)))
    chunks = [encoded[a:b] for a, b in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    lines = LineDecoder()
    for chunk in chunks:
        output = lines.decode(chunk)
        assert not output or output.endswith("\n")
    assert decode_lines([*chunks, b"a rest without an end"]) == text


@given(st.lists(st.sampled_from([b"", b"a", b"bc\n", b"\n", b"a long one", b"x\ny\nz"])))
def test_buffered_partial_line_is_bounded(chunks: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "MAX_BYTES", LIMIT)
        lines = LineDecoder()
        decoded = ""
        for chunk in chunks:
            decoded += lines.decode(chunk)
            assert sum(map(len, lines._partial_line)) <= LIMIT
    longest = max(map(len, b"".join(chunks).split(b"\n")))
    # The chunk with the end of a line may exceed the limit.
    assert ("too_long" in decoded) <= (longest > LIMIT)
    assert ("too_long" in decoded) >= (longest > LIMIT + max(map(len, chunks), default=0))
    assert "too_long" not in decoded or decoded.endswith('"}\n')


def test_invalid_utf8_is_replaced() -> None:
    assert decode_lines([b"a\xff", b"\xc3\nb\n"]) == "a\ufffd\ufffd\nb\n"
    assert "ü\ud800".encode(LINE_ENCODING, "replace") == "ü?".encode()


def test_line_encoding_is_not_registered_under_other_names() -> None:
    with pytest.raises(LookupError):
        b"a".decode("antiphon_words")


def test_is_too_long_matches_only_the_notification() -> None:
    assert is_too_long(JSONRPCNotification(jsonrpc="2.0", method="antiphon/too_long"))
    assert not is_too_long(JSONRPCNotification(jsonrpc="2.0", method="ping"))
    assert not is_too_long(ValueError())


@pytest.mark.slow
def test_server_with_an_endless_first_line_is_unavailable() -> None:
    async def run() -> str:
        server = McpServerConfig(label="files", command=(sys.executable, "-c", FLOOD))
        async with gateway(server) as manager:
            with pytest.raises(ToolServerUnavailableError) as caught:
                async with open_toolset(manager):
                    pass
            return caught.value.message

    assert asyncio.run(run()).endswith("it wrote a line of more than 32 MiB.")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--old",)])
async def test_server_that_floods_during_a_call_is_restarted(flags: tuple[str, ...]) -> None:
    async with gateway(stdio_config("files", *flags)) as manager, open_toolset(manager) as toolset:
        sleeping = asyncio.create_task(toolset.call_tool(call("files__sleep")))
        await toolset.call_tool(call("files__wait_for", what="began"))
        lost_error = error_message(await toolset.call_tool(call("files__flood")))
        assert lost_error == (
            "The MCP server 'files' is not available: it wrote a line of more than 32 MiB."
            " Whether the call had an effect is not known."
        )
        # All running calls fail.
        assert error_message(await sleeping) == lost_error
        assert await toolset.call_tool(call("files__add", a=1, b=2)) == "3"


@pytest.mark.slow
async def test_long_line_within_the_limit_is_read() -> None:
    async with gateway(stdio_config()) as manager, open_toolset(manager) as toolset:
        size = 12_000_000  # sent twice: as text and as structured content
        decoded = await toolset.call_tool(call("files__huge", size=size))
        assert decoded is not None
        assert f"of {size} characters.]" in decoded


async def test_invalid_bytes_lose_only_their_line() -> None:
    async with gateway(stdio_config()) as manager, open_toolset(manager) as toolset:
        assert await toolset.call_tool(call("files__scribble")) == "scribbled"
