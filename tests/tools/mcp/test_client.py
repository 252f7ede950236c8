"""MCP client: the line limit for stdio servers, and output that is not the protocol."""

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

MOST = 8
FLOOD = "import os\nwhile True: os.write(1, b'x' * 65536)"


def heard(chunks: list[bytes]) -> str:
    lines = LineDecoder()
    return "".join(lines.decode(chunk) for chunk in chunks)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9)), st.data())
def test_lines_come_whole_however_they_are_cut(said: list[str], data: st.DataObject) -> None:
    text = "".join(f"{line}\n" for line in said)
    whole = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    lines = LineDecoder()
    for chunk in chunks:
        given_out = lines.decode(chunk)
        assert not given_out or given_out.endswith("\n")
    assert heard([*chunks, b"a rest without an end"]) == text


@given(st.lists(st.sampled_from([b"", b"a", b"bc\n", b"\n", b"a long one", b"x\ny\nz"])))
def test_what_is_kept_is_bounded(chunks: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "MAX_BYTES", MOST)
        lines = LineDecoder()
        said = ""
        for chunk in chunks:
            said += lines.decode(chunk)
            assert sum(map(len, lines._partial_line)) <= MOST
    longest = max(map(len, b"".join(chunks).split(b"\n")))
    # One chunk more may come with the end of a line.
    assert ("too_long" in said) <= (longest > MOST)
    assert ("too_long" in said) >= (longest > MOST + max(map(len, chunks), default=0))
    assert "too_long" not in said or said.endswith('"}\n')


def test_what_is_no_text_becomes_that() -> None:
    assert heard([b"a\xff", b"\xc3\nb\n"]) == "a\ufffd\ufffd\nb\n"
    assert "ü\ud800".encode(LINE_ENCODING, "replace") == "ü?".encode()


def test_other_encodings_are_as_they_were() -> None:
    with pytest.raises(LookupError):
        b"a".decode("antiphon_words")


def test_only_the_notice_is_one() -> None:
    assert is_too_long(JSONRPCNotification(jsonrpc="2.0", method="antiphon/too_long"))
    assert not is_too_long(JSONRPCNotification(jsonrpc="2.0", method="ping"))
    assert not is_too_long(ValueError())


def test_a_program_that_never_ends_its_first_line() -> None:
    async def run() -> str:
        server = McpServerConfig(label="files", command=(sys.executable, "-c", FLOOD))
        async with gateway(server) as opened:
            with pytest.raises(ToolServerUnavailableError) as caught:
                async with open_toolset(opened):
                    pass
            return caught.value.message

    assert asyncio.run(run()).endswith("it wrote a line of more than 32 MiB.")


@pytest.mark.parametrize("flags", [(), ("--old",)])
async def test_a_program_that_floods_in_a_call_is_started_again(flags: tuple[str, ...]) -> None:
    async with gateway(stdio_config("files", *flags)) as opened, open_toolset(opened) as made:
        sleeping = asyncio.create_task(made.call_tool(call("files__sleep")))
        await made.call_tool(call("files__wait_for", what="began"))
        lost = error_message(await made.call_tool(call("files__flood")))
        assert lost == (
            "The MCP server 'files' is not available: it wrote a line of more than 32 MiB."
            " Whether the call had an effect is not known."
        )
        # All that is asked of it fails by that.
        assert error_message(await sleeping) == lost
        assert await made.call_tool(call("files__add", a=1, b=2)) == "3"


async def test_a_line_that_is_long_and_has_an_end() -> None:
    async with gateway(stdio_config()) as opened, open_toolset(opened) as made:
        size = 12_000_000  # told twice: as words and as structure
        said = await made.call_tool(call("files__huge", size=size))
        assert said is not None
        assert f"of {size} characters.]" in said


async def test_bytes_that_are_no_text_cost_only_their_line() -> None:
    async with gateway(stdio_config()) as opened, open_toolset(opened) as made:
        assert await made.call_tool(call("files__scribble")) == "scribbled"
