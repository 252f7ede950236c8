"""pydantic-ai against the server at ``OPENAI_BASE_URL``."""

import sys
from pathlib import Path

from programs import run
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    BinaryContent,
    DeferredToolRequests,
    DeferredToolResults,
    ModelMessagesTypeAdapter,
    NativeOutput,
    PromptedOutput,
    ToolOutput,
    WebSearchTool,
)
from pydantic_ai.capabilities import NativeTool
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

#: One pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)
TWO_ROUNDS = (
    'call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}\n'
    'call get_weather {"city": "Bonn"}'
)
ADA = '{"name": "Ada", "born": 1815}'


class Person(BaseModel):
    name: str
    born: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"snow in {city}"


def show() -> BinaryContent:
    """A picture."""
    return BinaryContent(PIXEL, media_type="image/png")


def agent(kind=OpenAIResponsesModel, **options):
    return Agent(kind("m"), instructions="Be short.", **options)


async def history():
    first = await agent().run("I am Alice.")
    Path("history.json").write_bytes(first.all_messages_json())
    return first.output


async def history_again():
    messages = ModelMessagesTypeAdapter.validate_json(Path("history.json").read_bytes())
    return (await agent().run("Who?", message_history=messages)).output


async def previous_response():
    settings = {"openai_previous_response_id": "auto"}
    first = await agent().run("I am Bob.", model_settings=settings)
    second = await agent(tools=[get_weather]).run(
        TWO_ROUNDS, message_history=first.all_messages(), model_settings=settings
    )
    third = await agent().run(
        "Who?", message_history=second.all_messages(), model_settings=settings
    )
    return [second.output, third.output]


async def unstored():
    settings = {"openai_store": False}
    result = await agent(tools=[get_weather]).run(TWO_ROUNDS, model_settings=settings)
    return result.output


async def streamed():
    async with agent(tools=[get_weather]).run_stream(TWO_ROUNDS) as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    return [len(pieces) > 1, "".join(pieces)]


async def structured():
    answers = []
    for output, prompt in (
        (ToolOutput(Person, name="final"), f"call final {ADA}"),
        (NativeOutput(Person), f"say {ADA}"),
        (PromptedOutput(Person), f"say {ADA}"),
    ):
        result = await agent(output_type=output).run(prompt)
        assert isinstance(result.output, Person)
        answers.append(result.output.model_dump())
    return answers


async def approval():
    approving = agent(output_type=[str, DeferredToolRequests])
    approving.tool_plain(requires_approval=True)(pay)
    first = await approving.run('call pay {"amount": 3}')
    results = DeferredToolResults(
        approvals={call.tool_call_id: True for call in first.output.approvals}
    )
    again = await approving.run(message_history=first.all_messages(), deferred_tool_results=results)
    return again.output


def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


async def images():
    picture = BinaryContent(PIXEL, media_type="image/png")
    asked = await agent().run(["Look.", picture])
    returned = await agent(tools=[show]).run("call show")
    return [asked.output, returned.output]


async def web_search():
    searching = agent(capabilities=[NativeTool(WebSearchTool())], tools=[get_weather])
    return (await searching.run(TWO_ROUNDS)).output


async def chat():
    chatting = agent(OpenAIChatModel, tools=[get_weather, show])
    first = await chatting.run(TWO_ROUNDS)
    async with chatting.run_stream(TWO_ROUNDS, message_history=first.all_messages()) as result:
        streamed = await result.get_output()
    pdf = BinaryContent(b"%PDF-1.4", media_type="application/pdf")
    filed = await chatting.run(["say read", pdf])
    return [first.output, streamed, filed.output, (await chatting.run("call show")).output]


run(vars(sys.modules[__name__]))
