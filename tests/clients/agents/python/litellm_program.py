"""litellm's functions against the server at ``OPENAI_BASE_URL``."""

import json
import sys

import litellm
from programs import run

MODEL = "openai/m"
FUNCTION = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TWO_CALLS = 'call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}'
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


def text_of(response):
    return "".join(
        part.text for item in response.output if item.type == "message" for part in item.content
    )


def responses():
    first = litellm.responses(model=MODEL, input="I am Alice.")
    tool = {"type": "function", **FUNCTION}
    called = litellm.responses(
        model=MODEL, input=TWO_CALLS, tools=[tool], previous_response_id=first.id
    )
    outputs = [
        {"type": "function_call_output", "call_id": one.call_id, "output": one.arguments}
        for one in called.output
        if one.type == "function_call"
    ]
    answered = litellm.responses(model=MODEL, input=outputs, previous_response_id=called.id)
    last = litellm.responses(model=MODEL, input="Who?", previous_response_id=answered.id)
    return [text_of(answered), text_of(last)]


def responses_streamed():
    events = list(litellm.responses(model=MODEL, input="say one two", stream=True))
    deltas = [one.delta for one in events if one.type == "response.output_text.delta"]
    return [len(deltas) > 1, "".join(deltas), str(events[-1].type.value)]


def completion():
    messages = [{"role": "user", "content": TWO_CALLS}]
    tools = [{"type": "function", "function": FUNCTION}]
    called = litellm.completion(model=MODEL, messages=messages, tools=tools).choices[0].message
    messages.append(called.model_dump())
    for one in called.tool_calls:
        content = json.loads(one.function.arguments)["city"]
        messages.append({"role": "tool", "tool_call_id": one.id, "content": content})
    return (
        litellm.completion(model=MODEL, messages=messages, tools=tools).choices[0].message.content
    )


def completion_streamed():
    chunks = litellm.completion(
        model=MODEL,
        messages=[{"role": "user", "content": "say one two"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def structured():
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "strict": True}}
    answer = litellm.completion(
        model=MODEL,
        messages=[{"role": "user", "content": 'say {"name": "Ada"}'}],
        response_format=form,
    )
    return json.loads(answer.choices[0].message.content)


def stored():
    made = litellm.responses(model=MODEL, input="Hi")
    again = litellm.get_responses(made.id, custom_llm_provider="openai")
    gone = litellm.delete_responses(made.id, custom_llm_provider="openai")
    return [text_of(again), gone.deleted]


run(vars(sys.modules[__name__]))
