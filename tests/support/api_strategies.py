"""Items and responses at random, and the published types of the API to hold them against."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import openresponses_types as spec
from hypothesis import strategies as st
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from antiphon.core.items import (
    ApprovedCall,
    Compaction,
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputText,
    InputVideo,
    Item,
    McpApproval,
    McpListTools,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
    SummaryText,
)
from antiphon.core.turns import End, FunctionTool, McpTool, Options, TurnError, Usage

ID = "resp_" + "ab" * 16

#: The official client's types.
OPENAI_ITEM: TypeAdapter[ResponseItem] = TypeAdapter(ResponseItem)
OPENAI_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
#: The specification's, by their type.
SPEC_ITEMS: dict[str, type[BaseModel]] = {
    "message": spec.Message,
    "function_call": spec.FunctionCall,
    "function_call_output": spec.FunctionCallOutput,
    "reasoning": spec.ReasoningBody,
    "compaction": spec.CompactionBody,
}
SPEC_EVENTS: dict[str, type[BaseModel]] = {
    next(iter(kind.model_fields["type"].annotation)).value: kind
    for name, kind in vars(spec).items()
    if name.endswith("StreamingEvent")
}
#: What OpenAI's API has besides the specification.
NON_SPEC_ITEM_TYPES = {
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
}

texts = st.text(max_size=20)
names = st.sampled_from(["read", "write", "a-b_c"])
statuses = st.sampled_from(["completed", "incomplete"])
logprobs: st.SearchStrategy[Any] = st.lists(
    st.fixed_dictionaries(
        {
            "token": texts,
            "logprob": st.floats(-9, 0),
            "bytes": st.lists(st.integers(0, 255), max_size=2),
            "top_logprobs": st.just([]),
        }
    ),
    max_size=2,
).map(tuple)
sources: st.SearchStrategy[Any] = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.just("url_citation"),
            "url": texts,
            "title": texts,
            "start_index": st.integers(0, 9),
            "end_index": st.integers(0, 9),
        }
    ),
    max_size=2,
).map(tuple)
files = st.builds(InputFile, st.none() | texts, texts, st.none() | texts)
images = st.builds(InputImage, texts, st.sampled_from(["auto", "low", "high"]))
inputs = st.builds(InputText, st.text(min_size=1, max_size=20)) | images | files
outputs = st.builds(OutputText, texts, sources, logprobs) | st.builds(Refusal, texts)
questions = st.builds(
    Message,
    st.sampled_from(["user", "system", "developer"]),
    texts | st.lists(inputs, min_size=2, max_size=3).map(tuple),
    st.none(),
    statuses,
)
videos = st.builds(
    Message, st.just("user"), st.builds(InputVideo, texts).map(lambda one: (InputText("Look"), one))
)
answers = st.builds(
    Message,
    st.just("assistant"),
    texts | st.lists(outputs, min_size=2, max_size=3).map(tuple),
    st.none(),
    statuses,
    st.sampled_from([None, "commentary", "final_answer"]),
)
thoughts = st.builds(
    Reasoning,
    st.lists(st.builds(SummaryText, texts), max_size=2).map(tuple),
    st.lists(st.builds(ReasoningText, texts), max_size=2).map(tuple),
    st.none() | texts,
    statuses,
)
calls = st.builds(FunctionCall, texts, texts, texts, statuses)
results = st.builds(
    FunctionCallOutput, texts, texts | st.lists(inputs, min_size=2, max_size=2).map(tuple), statuses
)
listed = st.fixed_dictionaries(
    {"name": names, "input_schema": st.just({"type": "object"})},
    optional={"description": texts, "annotations": st.just({"readOnlyHint": True})},
)
lists = st.builds(
    McpListTools, st.just("files"), st.lists(listed, max_size=2).map(tuple), st.none() | texts
)
compactions = st.builds(Compaction, texts)
approvals = st.builds(McpApproval, texts, st.booleans(), st.none() | texts)
#: Items that are shown one by one.
single = questions | videos | answers | thoughts | calls | results | lists | compactions | approvals


@st.composite
def server_calls(draw: st.DrawFn) -> list[Item]:
    """A call of an MCP server, and mostly its output; the ids are those of some model."""
    call_id = draw(st.uuids().map(str))
    tool = draw(names)
    call = FunctionCall(call_id, f"files__{tool}", draw(texts), server="files")
    output = FunctionCallOutput(call_id, draw(texts), is_error=draw(st.booleans()))
    return draw(st.sampled_from([[call, output], [call, output], [call]]))


@st.composite
def late_outputs(draw: st.DrawFn) -> list[Item]:
    """The output of a call that a person agreed to after its turn was over."""
    call = FunctionCall(draw(st.uuids().map(str)), "files__read", draw(texts), server="files")
    approved = ApprovedCall(f"mcpr_{'cd' * 17}", call)
    return [FunctionCallOutput(call.call_id, draw(texts), approved_call=approved)]


def groups_of(items: st.SearchStrategy[Item]) -> st.SearchStrategy[tuple[Item, ...]]:
    """Items one after another, with those of MCP servers between them."""
    gone: list[Item] = [ErasedItem()]
    group = items.map(lambda item: [item]) | server_calls() | late_outputs() | st.just(gone)
    return st.lists(group, max_size=6).map(
        lambda groups: tuple(item for group in groups for item in group)
    )


#: What a turn may take in or give out, and what it may give out.
turns = groups_of(single)
output_items = groups_of(answers | thoughts | calls | results | lists | compactions)

approval_rules: st.SearchStrategy[Any] = st.sampled_from(["always", "never", ("read",)])
servers = st.builds(
    McpTool,
    st.just("files"),
    st.just("https://example.com"),
    st.none() | texts,
    st.none() | st.just(("read", "write")),
    approval_rules,
    st.just(()) | st.just(("a-b_c",)),
)
#: The choice of a tool, and the tools that may be called.
choices: st.SearchStrategy[tuple[str, tuple[str, ...] | None]] = st.sampled_from(
    [
        ("auto", None),
        ("none", None),
        ("required", None),
        ("function:f", None),
        ("function:files__read", None),
        ("required", ("files__*",)),
        ("auto", ("f", "files__*", "files__read")),
    ]
)
settings_of_turns = st.builds(
    Options,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    max_output_tokens=st.none() | st.integers(1, 99),
    tools=st.just(()) | st.just((FunctionTool("f"), FunctionTool("g", "It does.", {}, True))),
    mcp_servers=servers.map(lambda one: (one,)),
    text_format=st.none() | st.just({"type": "json_object"}),
    verbosity=st.none() | st.sampled_from(["low", "medium", "high"]),
    reasoning_effort=st.none() | st.sampled_from(["none", "low", "xhigh"]),
    reasoning_summary=st.none() | st.sampled_from(["auto", "concise"]),
    top_logprobs=st.none() | st.integers(0, 20),
    service_tier=st.none() | st.sampled_from(["auto", "flex"]),
    max_tool_calls=st.none() | st.integers(1, 9),
    prompt_cache_key=st.none() | texts,
    safety_identifier=st.none() | texts,
    metadata=st.dictionaries(texts, texts, max_size=2),
    user=st.none() | texts,
)
options = st.builds(
    lambda settings, choice: msgspec.structs.replace(
        settings, tool_choice=choice[0], allowed_tools=choice[1]
    ),
    settings_of_turns,
    choices,
)
ends = st.none() | st.builds(
    End,
    st.sampled_from(["completed", "incomplete", "failed", "cancelled"]),
    st.just(1700000009.9),
    st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
    st.none() | st.just(TurnError("upstream_error", "It broke.")),
    st.none() | st.just("max_output_tokens"),
)


def plain(value: Any) -> Any:
    """As it comes back from the wire."""
    return json.loads(json.dumps(value))


def check_item(body: dict[str, Any]) -> None:
    """One shown item against both APIs' types."""
    if not (body["type"] == "message" and "input_video" in str(body)):
        # Videos are the specification's alone.
        OPENAI_ITEM.validate_python(body)
    if body["type"] not in NON_SPEC_ITEM_TYPES:
        SPEC_ITEMS[body["type"]].model_validate(body)


def check_response(body: dict[str, Any]) -> None:
    """A shown response against both APIs' types, as far as each goes."""
    for item in body["output"]:
        check_item(item)
    known: dict[str, Any] = dict(body)
    if body["error"]:
        # OpenAI's list of codes is its own; ours says more.
        known["error"] = {**body["error"], "code": "server_error"}
    OpenAIResponse.model_validate(known)
    beyond = body["tool_choice"]
    spec.ResponseResource.model_validate(
        {
            **body,
            "output": [item for item in body["output"] if item["type"] not in NON_SPEC_ITEM_TYPES],
            "tools": [tool for tool in body["tools"] if tool["type"] == "function"],
            # The specification's own choices know functions only.
            "tool_choice": "auto" if "mcp" in str(beyond) else beyond,
        }
    )


def check_event(event: dict[str, Any]) -> None:
    """A streamed event against both APIs' types, as far as each goes."""
    kind = event["type"]
    if "response" in event:
        check_response(event["response"])
        return
    if "item" in event:
        check_item(event["item"])
        return
    if not kind.startswith("response.reasoning."):
        # Raw reasoning has a name of its own in the specification.
        OPENAI_EVENT.validate_python(event)
    if "mcp" not in kind:
        SPEC_EVENTS[kind].model_validate(event)
