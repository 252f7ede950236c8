"""Parts of chats: images, tools, reasoning and attachments of each format, and odd fields."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    Item,
    Message,
    Reasoning,
    has_image,
)
from antiphon.transfer.chat_file import ChatFile, UnreadableChat
from antiphon.transfer.whole_chat import WholeChat
from antiphon.turn.message_rendering import render_turn
from support.chat_exports import (
    PNG,
    PNG_URL,
    Json,
    chatgpt_chat,
    chatgpt_node,
    claude_chat,
    claude_message,
    librechat_chat,
    llama_cpp_chat,
    message_list,
    open_webui_chat,
    png,
    zipped,
)
from support.example_counts import examples


def read(value: Any, files: dict[str, bytes] | None = None) -> WholeChat:
    """The one chat of a value, in a zip where there are files beside it."""
    data = json.dumps(value).encode()
    if files is not None:
        data = zipped({"conversations.json": data, **files})
    (chat,) = ChatFile(io.BytesIO(data)).chats()
    assert isinstance(chat, WholeChat), chat
    return chat


def items_of(chat: WholeChat) -> list[Item]:
    return [item for turn in chat.turns for item in (*turn.input, *turn.output)]


def gpt(*nodes: tuple[str, Json]) -> Json:
    """A conversation of these nodes, one behind another."""
    linked = {
        name: {**node, "parent": nodes[at - 1][0] if at else None}
        for at, (name, node) in enumerate(nodes)
    }
    return {**chatgpt_chat(), "mapping": linked, "current_node": nodes[-1][0]}


def image_of(pointer: str) -> Json:
    part = {"content_type": "image_asset_pointer", "asset_pointer": pointer, "width": 4}
    return {"content_type": "multimodal_text", "parts": [part, "What is it?"]}


@pytest.mark.parametrize(
    ("pointer", "name"),
    [
        ("file-service://file-AbC123", "file-AbC123-picture.png"),
        ("sediment://file_00000000abcd", "file_00000000abcd-sanitized.dat"),
        ("sediment://file_00000000abcd", "user-x/deep/file_00000000abcd.jpeg"),
        ("file-service://file-AbC123", "dalle-generations/file-AbC123.webp"),
    ],
)
def test_chatgpt_images_are_found_in_the_zip(pointer: str, name: str) -> None:
    question = chatgpt_node("q", None, [], "user", image_of(pointer))
    chat = read([gpt(question)], {name: PNG, "file-Other-b.png": png("blue")})
    assert items_of(chat) == [
        Message("user", (InputImage(PNG_URL), *items_of(chat)[0].content[1:]))  # type: ignore[union-attr]
    ]
    assert chat.skipped == ()
    missing = read([gpt(question)])
    assert not any(map(has_image, items_of(missing)))
    assert "not in the file" in missing.skipped[0]


def test_chatgpt_tools_are_calls_with_outputs() -> None:
    chat = read(
        gpt(
            chatgpt_node("q", None, [], "user", "What is 2**10?"),
            chatgpt_node(
                "t",
                "q",
                [],
                "assistant",
                {"content_type": "thoughts", "thoughts": [{"summary": "Plan", "content": "Run."}]},
            ),
            chatgpt_node(
                "r", "t", [], "assistant", {"content_type": "reasoning_recap", "content": "8s"}
            ),
            chatgpt_node(
                "c",
                "r",
                [],
                "assistant",
                {"content_type": "code", "language": "python", "text": "print(2**10)"},
                recipient="python",
            ),
            chatgpt_node(
                "o",
                "c",
                [],
                "tool",
                {"content_type": "execution_output", "text": "1024"},
                author_name="python",
            ),
            chatgpt_node(
                "b",
                "o",
                [],
                "tool",
                {"content_type": "tether_browsing_display", "result": "A page.", "summary": ""},
                author_name="browser",
            ),
            chatgpt_node("a", "b", [], "assistant", "It is 1024."),
        )
    )
    (turn,) = chat.turns
    thought, call, output, second, page, answer = turn.output
    assert isinstance(thought, Reasoning)
    assert thought.text == "Plan\nRun."
    assert isinstance(call, FunctionCall)
    assert (call.name, json.loads(call.arguments)) == ("python", {"input": "print(2**10)"})
    assert isinstance(second, FunctionCall)
    assert second.name == "browser"
    assert output == FunctionCallOutput(call.call_id, "1024")
    assert page == FunctionCallOutput(second.call_id, "A page.")
    assert answer == Message("assistant", "It is 1024.")
    assert turn.end.status == "completed"


def test_chatgpt_custom_instructions_become_instructions() -> None:
    profile = {
        "content_type": "user_editable_context",
        "user_profile": "I am a baker.",
        "user_instructions": "Be brief.",
    }
    older = {
        "is_user_system_message": True,
        "user_context_message_data": {"about_user_message": "I bake.", "about_model_message": ""},
    }
    for node, expected in (
        (chatgpt_node("p", None, [], "user", profile), "I am a baker.\n\nBe brief."),
        (chatgpt_node("p", None, [], "system", "", metadata=older), "I bake."),
    ):
        chat = read(gpt(node, chatgpt_node("q", "p", [], "user", "Hi")))
        assert [turn.header.instructions for turn in chat.turns] == [expected]
        assert items_of(chat) == [Message("user", "Hi")]


def test_chatgpt_parts_of_other_types_are_named() -> None:
    content = {
        "content_type": "multimodal_text",
        "parts": [
            {"content_type": "audio_transcription", "text": "Spoken words."},
            {"content_type": "real_time_user_audio_video_asset_pointer"},
            "",
        ],
    }
    attachments = {"attachments": [{"id": "file-1", "name": "report.pdf"}]}
    chat = read(gpt(chatgpt_node("q", None, [], "user", content, metadata=attachments)))
    assert items_of(chat) == [Message("user", "Spoken words.")]
    assert chat.skipped == (
        "a part of the type real_time_user_audio_video_asset_pointer",
        "an attached file whose words are not in the export: report.pdf",
    )


def test_claude_blocks_keep_their_order() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Let me look."},
        {"type": "text", "text": "I look it up."},
        {"type": "tool_use", "id": "toolu_1", "name": "web_search", "input": {"q": "plum"}},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_1",
            "name": "web_search",
            "content": [
                {"type": "text", "text": "A fruit."},
                {"type": "knowledge", "title": "Wiki"},
            ],
        },
        {"type": "text", "text": "A plum is a fruit."},
        {"type": "flag"},
    ]
    chat = claude_chat()
    chat["chat_messages"] = [
        {
            **claude_message("q", "", "human", "What is a plum?", 1),
            "attachments": [
                {"file_name": "notes.txt", "extracted_content": "Plums are blue."},
                {"file_name": "empty.pdf", "extracted_content": ""},
            ],
            "files": [{"file_name": "notes.txt"}, {"file_name": "photo.jpg"}],
        },
        claude_message("a", "q", "assistant", blocks, 2),
    ]
    found = read([chat])
    (turn,) = found.turns
    assert turn.input == (Message("user", "What is a plum?\n--- notes.txt ---\nPlums are blue."),)
    call = next(item for item in turn.output if isinstance(item, FunctionCall))
    assert (call.name, json.loads(call.arguments)) == ("web_search", {"q": "plum"})
    assert [type(item) for item in turn.output] == [
        Reasoning,
        Message,
        FunctionCall,
        FunctionCallOutput,
        Message,
    ]
    assert turn.output[3] == FunctionCallOutput(call.call_id, "A fruit.\nWiki")
    assert len(found.skipped) == 3


def test_open_webui_reasoning_and_tools_are_taken_out_of_the_text() -> None:
    value = open_webui_chat()
    messages = value["chat"]["history"]["messages"]
    messages["a3"]["content"] = (
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n'
        "&gt; A fruit\n&gt; it is.\n</details>\nI look.\n"
        '<details type="tool_calls" done="true" id="c" name="look up" '
        'arguments="{&quot;q&quot;: 1}" result="&quot;Plum&quot;">\n<summary>Done</summary>\n'
        "</details>\nPlum. <details><summary>Not ours</summary></details>"
    )
    messages["q2"]["files"] = [
        {"type": "image", "url": PNG_URL},
        {"type": "file", "name": "a.pdf", "url": "123"},
    ]
    chat = read([value])
    turn = chat.turns[-1]
    thought, words, call, output, answer = turn.output
    assert thought.text == "A fruit\nit is."  # type: ignore[union-attr]
    assert words == Message("assistant", "I look.")
    assert (call.name, call.arguments) == ("look_up", '{"q": 1}')  # type: ignore[union-attr]
    assert output == FunctionCallOutput(call.call_id, '"Plum"')  # type: ignore[union-attr]
    assert answer == Message("assistant", "Plum. <details><summary>Not ours</summary></details>")
    assert has_image(turn.input[0])
    assert chat.skipped == ("an attached file whose words are not in the export: a.pdf",)
    assert chat.pinned


def test_librechat_contents_of_parts() -> None:
    value = librechat_chat()
    value["messages"][4] |= {
        "text": "",
        "content": [
            {"type": "think", "think": "Hm."},
            {"type": "text", "text": {"value": "Look:"}},
            {
                "type": "tool_call",
                "tool_call": {"id": "1", "name": "look", "args": "{}", "output": "Plum"},
            },
            {"type": "text", "text": "Plum."},
            {"type": "agent_update"},
        ],
    }
    chat = read(value)
    assert [type(item) for item in chat.turns[-1].output] == [
        Reasoning,
        Message,
        FunctionCall,
        FunctionCallOutput,
        Message,
    ]
    assert chat.skipped == ("a part of the type agent_update",)


def test_llama_cpp_extras_and_tools() -> None:
    value = llama_cpp_chat()
    by_id = {one["id"]: one for one in value["messages"]}
    by_id["q2"]["extra"] = [
        {"type": "imageFile", "name": "p.png", "base64Url": PNG_URL},
        {"type": "textFile", "name": "n.txt", "content": "Notes."},
        {"type": "audioFile", "name": "s.wav", "base64Data": "AAAA"},
    ]
    by_id["a3"] |= {
        "thinking": "Hm.",
        "toolCalls": json.dumps([{"id": "c1", "function": {"name": "look", "arguments": "{}"}}]),
    }
    value["messages"].append(
        {
            "id": "t",
            "type": "text",
            "role": "tool",
            "content": "Seen",
            "parent": "a3",
            "toolCallId": "c1",
            "children": [],
        }
    )
    chat = read(value)
    turn = chat.turns[-1]
    assert has_image(turn.input[0])
    assert "Notes." in str(turn.input[0])
    assert [type(item) for item in turn.output] == [
        Reasoning,
        Message,
        FunctionCall,
        FunctionCallOutput,
    ]
    assert chat.skipped == ("an attachment of the type audioFile: s.wav",)


def test_messages_with_tools_images_and_reasoning() -> None:
    chat = read(
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": PNG_URL}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm.",
                "tool_calls": [
                    {
                        "id": "a",
                        "type": "function",
                        "function": {"name": "look", "arguments": {"at": 1}},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "A plum"},
            {"role": "tool", "tool_call_id": "nobody's", "content": "Lost"},
            {"role": "assistant", "content": "A plum."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]},
        ]
    )
    first, *_ = chat.turns
    assert has_image(first.input[0])
    kinds = [type(item) for item in first.output]
    assert kinds == [
        Reasoning,
        FunctionCall,
        FunctionCallOutput,
        FunctionCall,
        FunctionCallOutput,
        Message,
    ]
    assert chat.skipped == ("an image that is not in the file: file:///x",)


def test_a_call_that_nobody_answered_leaves_its_turn_incomplete() -> None:
    call = {"id": "a", "function": {"name": "look", "arguments": "{}"}}
    chat = read([{"role": "user", "content": "Look"}, {"role": "assistant", "tool_calls": [call]}])
    assert [turn.end.status for turn in chat.turns] == ["incomplete"]


def test_an_answer_that_two_questions_follow_is_stored_once() -> None:
    value = claude_chat()
    value["chat_messages"].append(claude_message("q9", "a2", "human", "And a tree?", 50))
    chat = read([value])
    said = [item.content for item in items_of(chat) if isinstance(item, Message)]
    assert said.count("Blue.") == 1
    assert [turn.parent for turn in chat.turns] == [None, None, 1, 1]


def test_a_file_of_nothing_but_forks_does_not_grow() -> None:
    """Each question is behind the last one, and each has an answer besides."""
    size = 2000
    nodes = []
    for number in range(size):
        nodes.append(claude_message(f"q{number}", f"q{number - 1}", "human", f"Q{number}", 1))
        nodes.append(claude_message(f"a{number}", f"q{number}", "assistant", "A", 2))
    chat = read([{**claude_chat(), "chat_messages": nodes}])
    assert len(items_of(chat)) < 12 * size
    asked = {item.content for item in items_of(chat) if isinstance(item, Message)}
    assert {f"Q{number}" for number in range(size)} <= asked


def test_circles_and_orphans_lose_no_words() -> None:
    value = claude_chat()
    value["chat_messages"][0]["parent_message_uuid"] = "a3"
    value["chat_messages"][1]["parent_message_uuid"] = "nowhere"
    chat = read([value])
    said = {item.content for item in items_of(chat) if isinstance(item, Message)}
    assert said == {"Name a colour.", "Red.", "Blue.", "And a fruit?", "Plum."}
    assert chat.skipped == ("the place of a message that is its own ancestor",)


def test_broken_text_is_replaced_and_kept() -> None:
    raw = json.dumps([{"role": "user", "content": "a MARK b"}]).encode()
    for broken in (rb"\ud83d", b"\xff\xfe", rb"\udc00x"):
        (chat,) = ChatFile(io.BytesIO(raw.replace(b"MARK", broken))).chats()
        assert isinstance(chat, WholeChat)
        (item,) = items_of(chat)
        assert isinstance(item, Message)
        assert str(item.content).startswith("a \ufffd")
        item.content.encode()  # type: ignore[union-attr]


def test_hostile_nesting_fails_its_chat_only() -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    data = b'[{"mapping": ' + deep + b"}, " + json.dumps(claude_chat()).encode() + b"]"
    first, second = ChatFile(io.BytesIO(data)).chats()
    assert first == UnreadableChat(None, "it is nested too deeply")
    assert isinstance(second, WholeChat)


_ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        -1,
        1e308,
        10**400,
        "",
        "x",
        "\x1b[31m",
        "\ud83d",
        [],
        [None],
        {},
        {"a": [1]},
        [[]],
    ]
)
_FIXTURES = [
    chatgpt_chat(),
    claude_chat(),
    open_webui_chat(),
    librechat_chat(),
    librechat_chat(is_nested=True),
    llama_cpp_chat(),
    {"messages": message_list()},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, one in inner:
        found.append((*path, key))
        if isinstance(one, dict | list):
            found += places(one, (*path, key))
    return found


@settings(max_examples=examples(80))
@given(data=st.data())
def test_odd_fields_never_raise_and_what_is_read_can_be_rendered(data: st.DataObject) -> None:
    value = copy.deepcopy(data.draw(st.sampled_from(_FIXTURES)))
    for _ in range(data.draw(st.integers(1, 4))):
        paths = places(value)
        if not paths:
            break
        *above, last = data.draw(st.sampled_from(paths))
        inner: Any = value
        for key in above:
            inner = inner[key]
        inner[last] = copy.deepcopy(data.draw(_ODD))
    for chat in ChatFile(io.BytesIO(json.dumps([value]).encode())).chats():
        if isinstance(chat, WholeChat):
            for turn in chat.turns:
                render_turn((*turn.input, *turn.output))
                assert turn.parent is None or 0 <= turn.parent < chat.turns.index(turn)
