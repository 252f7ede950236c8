"""Reading export files: each format with its branches, and what is odd about real ones."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, datetime
from typing import Any

import pytest

from antiphon.core.items import Item, Message, Reasoning, text_and_refusals_of
from antiphon.errors import InvalidRequestError
from antiphon.transfer import chat_file
from antiphon.transfer.chat_file import ChatFile, ReadChat, UnreadableChat
from antiphon.transfer.whole_chat import WholeChat
from support.chat_exports import (
    CURRENT,
    OTHER,
    chatgpt_chat,
    claude_chat,
    librechat_chat,
    llama_cpp_chat,
    llama_cpp_lines,
    message_list,
    open_webui_chat,
    zipped,
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def read(data: bytes) -> list[ReadChat]:
    return list(ChatFile(io.BytesIO(data)).chats())


def read_one(data: bytes | dict[str, Any]) -> WholeChat:
    (chat,) = read(data if isinstance(data, bytes) else encoded(data))
    assert isinstance(chat, WholeChat), chat
    return chat


def words(items: tuple[Item, ...]) -> list[str]:
    """What is said and thought in items, calls by their names and arguments."""
    found = []
    for item in items:
        match item:
            case Message(content=content):
                found.append(text_and_refusals_of(content))
            case Reasoning():
                found.append(f"({item.text})")
            case _:
                found.append(str(getattr(item, "arguments", getattr(item, "output", ""))))
    return found


def branches(chat: WholeChat) -> list[list[str]]:
    """The words of each branch, from its first turn to its last, in the order of their ends."""
    parents = {turn.parent for turn in chat.turns}
    found = []
    for leaf in range(len(chat.turns)):
        if leaf in parents:
            continue
        path: list[str] = []
        at: int | None = leaf
        while at is not None:
            turn = chat.turns[at]
            path[:0] = [*words(turn.input), *words(turn.output)]
            at = turn.parent
        found.append(path)
    return found


FORMATS: dict[str, tuple[str, bytes]] = {
    "ChatGPT": ("chatgpt", encoded([chatgpt_chat()])),
    "ChatGPT, one conversation": ("chatgpt", encoded(chatgpt_chat())),
    "ChatGPT, a zip": ("chatgpt", zipped({"conversations.json": [chatgpt_chat()]})),
    "ChatGPT, numbered files": (
        "chatgpt",
        zipped({"user.json": {"id": "u"}, "conversations-000.json": [chatgpt_chat()]}),
    ),
    "ChatGPT, a folder in the zip": ("chatgpt", zipped({"a/b/x.dat": [chatgpt_chat()]})),
    "Claude": ("claude", encoded([claude_chat()])),
    "Claude, a zip": ("claude", zipped({"conversations.json": [claude_chat()], "users.json": []})),
    "Open WebUI": ("open_webui", encoded([open_webui_chat()])),
    "Open WebUI, the chat alone": ("open_webui", encoded(open_webui_chat()["chat"])),
    "LibreChat": ("librechat", encoded(librechat_chat())),
    "LibreChat, nested": ("librechat", encoded(librechat_chat(is_nested=True))),
    "llama.cpp": ("llama_cpp", encoded(llama_cpp_chat())),
    "llama.cpp, an array": ("llama_cpp", encoded([llama_cpp_chat()])),
    "llama.cpp, lines": ("llama_cpp", llama_cpp_lines(llama_cpp_chat())),
    "llama.cpp, a zip": ("llama_cpp", zipped({"a.jsonl": llama_cpp_lines(llama_cpp_chat())})),
}


@pytest.mark.parametrize(("source", "data"), FORMATS.values(), ids=FORMATS)
def test_every_branch_of_every_format_is_read_with_its_times(source: str, data: bytes) -> None:
    chat = read_one(data)
    assert (chat.source, chat.skipped) == (source, ())
    assert branches(chat) == [OTHER, CURRENT], "the branch that was shown last ends the list"
    assert [round(turn.created_at) for turn in chat.turns] == [
        1_700_000_000,
        1_700_000_000,
        1_700_000_020,
    ]
    assert all(turn.end.ended_at >= turn.created_at for turn in chat.turns)
    assert {turn.end.status for turn in chat.turns} == {"completed"}
    if "alone" not in str(data):
        assert chat.title == "Colours"


@pytest.mark.parametrize(
    "data",
    [
        encoded(message_list()),
        encoded([message_list()]),
        encoded({"messages": message_list()}),
        b"\n".join(map(encoded, message_list())),
        encoded([{"role": "system", "content": "Be short."}, *message_list()]),
        encoded(
            {
                "conversations": [
                    {"from": "human", "value": one["content"]}
                    if one["role"] == "user"
                    else {"from": "gpt", "value": one["content"]}
                    for one in message_list()
                ]
            }
        ),
    ],
    ids=["an array", "a list of arrays", "an object", "lines", "a system message", "ShareGPT"],
)
def test_messages_arrays_are_one_branch(data: bytes) -> None:
    chat = read_one(data)
    assert (chat.source, branches(chat)) == ("messages", [CURRENT])
    assert chat.turns[0].header.instructions in {None, "Be short."}


def test_many_chats_of_several_formats_may_be_in_one_file() -> None:
    found = read(encoded([chatgpt_chat(), claude_chat(), message_list(), llama_cpp_chat()]))
    sources = [chat.source for chat in found if isinstance(chat, WholeChat)]
    assert sources == ["chatgpt", "claude", "messages", "llama_cpp"]


def test_lines_of_several_llama_cpp_chats_are_several_chats() -> None:
    lines = [llama_cpp_lines(llama_cpp_chat(name)) for name in ("a", "b")]
    assert [branches(chat) for chat in read(b"\n".join(lines)) if isinstance(chat, WholeChat)] == [
        [OTHER, CURRENT]
    ] * 2


def test_the_same_turn_has_the_same_digest_and_no_two_turns_share_one() -> None:
    digests = [
        turn.digest
        for chat in read(encoded([chatgpt_chat("a"), chatgpt_chat("b"), claude_chat("a")]))
        if isinstance(chat, WholeChat)
        for turn in chat.turns
    ]
    assert len(set(digests)) == len(digests) == 9
    assert [turn.digest for turn in read_one(chatgpt_chat("a")).turns] == digests[:3]


def test_a_chat_that_has_grown_keeps_the_digests_of_what_was_there() -> None:
    before = read_one(claude_chat())
    grown = claude_chat()
    grown["chat_messages"] += [
        {"uuid": "q3", "parent_message_uuid": "a3", "sender": "human", "text": "And a tree?"},
        {"uuid": "a4", "parent_message_uuid": "q3", "sender": "assistant", "text": "Elm."},
    ]
    after = read_one(grown)
    assert {turn.digest for turn in before.turns} < {turn.digest for turn in after.turns}
    assert len(after.turns) == 4


def test_broken_chats_are_reported_in_their_places() -> None:
    found = read(b'[{"mapping": {}}, {"odd": 1}, 5, ' + encoded(claude_chat()) + b', {"mapping": ')
    assert isinstance(found[0], WholeChat)
    assert found[0].turns == ()
    reasons = [chat.reason for chat in found if isinstance(chat, UnreadableChat)]
    assert reasons[:2] == ["it is no chat of a known program"] * 2
    assert "ends in the middle" in reasons[2]


def test_entries_of_a_zip_without_chats_are_named() -> None:
    data = zipped({"user.json": {"id": 1}, "c.json": [claude_chat()], "picture.png": b"\x89PNG"})
    file = ChatFile(io.BytesIO(data))
    assert len(list(file.chats())) == 1
    assert [(one.name, one.reason) for one in file.skipped_files] == [
        ("user.json", "there are no chats in it")
    ]
    assert file.progress == 1.0


@pytest.mark.parametrize("data", [b"", b"   ", b"hello", b"PK\x03\x04 and no zip", b"\x89PNG"])
def test_what_is_no_export_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError) as failed:
        list(ChatFile(io.BytesIO(data)).chats())
    assert failed.value.code == "unsupported_file"


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_file, "MAX_UNPACKED_BYTES", 1 << 20)
    bomb = b"[" + b" " * (8 << 20) + encoded(claude_chat()) + b"]"
    data = zipped({"a.json": [claude_chat()], "b.json": bomb})
    assert len(data) < 100_000
    file = ChatFile(io.BytesIO(data))
    assert [type(chat) for chat in file.chats()] == [WholeChat]
    assert "cannot be unpacked" in file.skipped_files[0].reason


def test_names_in_a_zip_lead_nowhere(tmp_path: Any) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("../../etc/passwd", "/etc/passwd", "C:\\x", "a/../b", "\x1b[31m"):
            archive.writestr(name, encoded([claude_chat(name)]))
    assert len(read(buffer.getvalue())) == 5
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_or_damaged_entry_is_named() -> None:
    data = bytearray(zipped({"a.json": [claude_chat()], "b.json": [chatgpt_chat()]}))
    at = data.index(b"a.json") + 20
    data[at : at + 40] = bytes(40)
    file = ChatFile(io.BytesIO(bytes(data)))
    assert len([chat for chat in file.chats() if isinstance(chat, WholeChat)]) == 1
    assert [one.name for one in file.skipped_files] == ["a.json"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [(1_795_958_463_579, 1_795_958_463.579), (1e300, None), (-5.0, None), (0, None)],
)
def test_times_of_a_document_can_be_shown(given: float, meant: float | None) -> None:
    turn = {"created_at": given, "ended_at": given, "model": "m", "status": "completed"}
    document = {
        "format": "antiphon.chat",
        "version": 1,
        "chat": {"created_at": given},
        "turns": [
            {"id": f"resp_{number:032x}", **turn, "parent": parent}
            for number, parent in ((1, None), (2, f"resp_{1:032x}"))
        ],
    }
    (chat,) = ChatFile(io.BytesIO(json.dumps(document).encode())).chats()
    assert isinstance(chat, WholeChat)
    times = [*(one.created_at for one in chat.turns), *(one.end.ended_at for one in chat.turns)]
    assert len(times) == 4
    for time in times:
        assert datetime.fromtimestamp(time, UTC).year <= 2100
        assert meant is None or time == pytest.approx(meant)
