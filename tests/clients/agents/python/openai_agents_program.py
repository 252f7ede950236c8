"""openai-agents against the server at ``OPENAI_BASE_URL``."""

import os
import sys
from pathlib import Path

from agents import (
    Agent,
    CustomTool,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesCompactionSession,
    OpenAIResponsesWSModel,
    Runner,
    SQLiteSession,
    ToolOutputImage,
    WebSearchTool,
    function_tool,
    set_tracing_disabled,
    tool_namespace,
)
from agents.mcp import MCPServerStdio, MCPServerStreamableHttp
from openai import AsyncOpenAI
from programs import run
from pydantic import BaseModel

set_tracing_disabled(True)

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
TWO_ROUNDS = (
    'call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}\n'
    'call get_weather {"city": "Bonn"}'
)


class Person(BaseModel):
    name: str
    born: int


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"snow in {city}"


@function_tool
def show() -> ToolOutputImage:
    """A picture."""
    return ToolOutputImage(image_url=PIXEL)


@function_tool(needs_approval=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def agent(**options):
    return Agent(name="A", model="m", instructions="Be short.", **options)


async def ask(of, prompt, **options):
    return str((await Runner.run(of, prompt, **options)).final_output)


async def previous_response():
    first = await Runner.run(agent(), "I am Alice.", auto_previous_response_id=True)
    second = await Runner.run(agent(), "Who?", previous_response_id=first.last_response_id)
    with_tools = agent(tools=[get_weather])
    third = await ask(with_tools, TWO_ROUNDS, previous_response_id=second.last_response_id)
    return [second.final_output, third]


async def conversation():
    id = (await AsyncOpenAI().conversations.create()).id
    Path("conversation").write_text(id)
    first = await ask(agent(tools=[get_weather]), TWO_ROUNDS, conversation_id=id)
    return [first, await ask(agent(), "I am Bob.", conversation_id=id)]


async def conversation_again():
    return await ask(agent(), "Who?", conversation_id=Path("conversation").read_text())


async def session():
    return await ask(agent(), "I am Carol.", session=SQLiteSession("carol", "sessions.db"))


async def session_again():
    stored = SQLiteSession("carol", "sessions.db")
    return [
        await ask(agent(), "Who?", session=stored),
        await ask(agent(tools=[get_weather]), TWO_ROUNDS, session=stored),
    ]


async def conversations_session():
    stored = OpenAIConversationsSession()
    await ask(agent(), "I am Dora.", session=stored)
    answer = await ask(agent(tools=[get_weather]), TWO_ROUNDS, session=stored)
    roles = [item.get("role") or item["type"] for item in await stored.get_items()]
    return [answer, roles]


async def compaction_session():
    stored = OpenAIResponsesCompactionSession("x", SQLiteSession("x"), model="gpt-m")
    await ask(agent(), "I am Erik.", session=stored)
    await stored.run_compaction({"force": True})
    return await ask(agent(), "Who?", session=stored)


async def streamed():
    result = Runner.run_streamed(agent(tools=[get_weather]), TWO_ROUNDS)
    deltas, items = "", []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            deltas += event.data.delta
        elif event.type == "run_item_stream_event":
            items.append(event.item.type)
    return [deltas, result.final_output, items]


async def structured():
    result = await Runner.run(
        agent(output_type=Person), 'say {"name": "Ada", "born": 1815}', max_turns=2
    )
    assert isinstance(result.final_output, Person)
    return result.final_output.model_dump()


async def handoff():
    other = Agent(name="Other", model="m", instructions="You are the other.")
    result = await Runner.run(agent(handoffs=[other]), "call transfer_to_other")
    return result.last_agent.name


async def agents_as_tools():
    other = agent().as_tool("ask_other", "Asks the other.")
    return await ask(agent(tools=[other]), 'call ask_other {"input": "say from the other"}')


async def approval():
    first = await Runner.run(agent(tools=[pay]), 'call pay {"amount": 3}')
    state = first.to_state()
    for one in first.interruptions:
        state.approve(one)
    return await ask(agent(tools=[pay]), state)


async def images():
    part = {"type": "input_image", "image_url": PIXEL, "detail": "original"}
    text = {"type": "input_text", "text": "Look."}
    shown = await ask(agent(), [{"role": "user", "content": [text, part]}])
    return [shown, await ask(agent(tools=[show]), "call show")]


async def custom_tool():
    async def patch(context, patch):
        return f"patched {patch}"

    tool = CustomTool(name="patch", description="Patches.", on_invoke_tool=patch)
    first = await Runner.run(
        agent(tools=[tool]), 'call patch {"input": "*** a"}', auto_previous_response_id=True
    )
    # As a history as well.
    history = [*first.to_input_list(), {"role": "user", "content": "Well?"}]
    return [first.final_output, await ask(agent(tools=[tool]), history)]


async def hosted_and_named_tools():
    named = tool_namespace(name="city", description="Cities.", tools=[get_weather])
    return await ask(agent(tools=[WebSearchTool(), *named]), TWO_ROUNDS.replace("get", "city__get"))


async def chat():
    model = OpenAIChatCompletionsModel("m", AsyncOpenAI())
    chatting = Agent(name="A", model=model, tools=[get_weather])
    result = Runner.run_streamed(chatting, TWO_ROUNDS)
    async for _ in result.stream_events():
        pass
    return [await ask(chatting, TWO_ROUNDS), result.final_output]


async def websocket():
    model = OpenAIResponsesWSModel("m", AsyncOpenAI())
    connected = Agent(name="A", model=model, tools=[get_weather])
    try:
        first = await Runner.run(connected, "I am Fay.", auto_previous_response_id=True)
        return await ask(connected, TWO_ROUNDS, previous_response_id=first.last_response_id)
    finally:
        await model.close()


async def mcp():
    environment = {**os.environ}
    stdio = {"command": os.environ["ANTIPHON"], "args": ["mcp"], "env": environment}
    url = os.environ["OPENAI_BASE_URL"].replace("/v1", "/mcp")
    answers = []
    for server in (MCPServerStdio(stdio), MCPServerStreamableHttp({"url": url})):
        async with server:
            asked = 'call stateful_chat {"prompt": "say by MCP"}'
            answers.append("by MCP" in await ask(agent(mcp_servers=[server]), asked))
    return answers


async def settings():
    options = ModelSettings(
        temperature=0.5, top_p=0.9, max_tokens=50, store=False, truncation="auto"
    )
    return await ask(agent(model_settings=options), "say well")


run(vars(sys.modules[__name__]))
