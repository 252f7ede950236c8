"""langchain-openai and LangGraph against the server at ``OPENAI_BASE_URL``."""

import base64
import sys

from langchain.agents import create_agent
from langchain.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, custom_tool
from langgraph.checkpoint.sqlite import SqliteSaver
from programs import run
from pydantic import BaseModel

TWO_ROUNDS = (
    'call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}\n'
    'call get_weather {"city": "Bonn"}'
)
ADA = '{"name": "Ada", "born": 1815}'
#: One pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)


class Person(BaseModel):
    """A person."""

    name: str
    born: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"snow in {city}"


def model(**options):
    return ChatOpenAI(model="m", use_responses_api=True, **options)


def checkpointed(graph_of, prompts):
    """The answers of an agent whose thread is in a file."""
    answers = []
    with SqliteSaver.from_conn_string("threads.db") as saver:
        graph = create_agent(graph_of, [get_weather], checkpointer=saver)
        for prompt in prompts:
            state = graph.invoke(
                {"messages": [HumanMessage(prompt)]}, {"configurable": {"thread_id": "t"}}
            )
            answers.append(state["messages"][-1].text)
    return answers


def checkpointer():
    return checkpointed(model(), ["I am Alice.", TWO_ROUNDS])


def checkpointer_again():
    return checkpointed(model(), ["Who?"])


def previous_response():
    chained = model(use_previous_response_id=True)
    graph = create_agent(chained, [get_weather])
    messages = graph.invoke({"messages": [HumanMessage("I am Bob.")]})["messages"]
    messages = graph.invoke({"messages": [*messages, HumanMessage(TWO_ROUNDS)]})["messages"]
    answer = messages[-1].text
    state = graph.invoke({"messages": [*messages, HumanMessage("Who?")]})
    return [answer, state["messages"][-1].text]


def streamed():
    graph = create_agent(model(), [get_weather])
    pieces = [
        piece.text
        for piece, _ in graph.stream(
            {"messages": [HumanMessage(TWO_ROUNDS)]}, stream_mode="messages"
        )
        if piece.type == "AIMessageChunk" and piece.text
    ]
    return [len(pieces) > 1, "".join(pieces)]


def structured():
    answers = []
    for chat in (True, False):
        for method, prompt in (
            ("json_schema", f"say {ADA}"),
            ("function_calling", f"call Person {ADA}"),
            ("json_mode", f"say {ADA}"),
        ):
            asked = ChatOpenAI(model="m", use_responses_api=chat)
            person = asked.with_structured_output(Person, method=method).invoke(
                f"As JSON.\n{prompt}"
            )
            answers.append(person if isinstance(person, dict) else person.model_dump())
    return answers


def structured_agent():
    graph = create_agent(model(), [get_weather], response_format=Person)
    return graph.invoke({"messages": [HumanMessage(f"call Person {ADA}")]})[
        "structured_response"
    ].born


def images():
    url = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image", "base64": url.partition(",")[2], "mime_type": "image/png"},
    ]
    content = [{"type": "text", "text": "Look."}, *parts]
    return [
        asked.invoke([HumanMessage(content)]).text for asked in (model(), ChatOpenAI(model="m"))
    ]


def custom_tools():
    @custom_tool
    def patch(text: str) -> str:
        """Patches."""
        return f"patched {text}"

    graph = create_agent(model(), [patch, {"type": "web_search"}])
    state = graph.invoke({"messages": [HumanMessage('call patch {"input": "*** a"}')]})
    return state["messages"][-1].text


def chat():
    chatting = ChatOpenAI(model="m", logprobs=True, top_logprobs=2)
    graph = create_agent(chatting, [get_weather])
    state = graph.invoke({"messages": [HumanMessage(TWO_ROUNDS)]})
    streamed = "".join(piece.text for piece in chatting.stream("Hi"))
    return [state["messages"][-1].text, streamed]


run(vars(sys.modules[__name__]))
