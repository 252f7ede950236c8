"""semantic-kernel against the server at ``OPENAI_BASE_URL``."""

import sys

from openai import AsyncOpenAI
from programs import run
from pydantic import BaseModel
from semantic_kernel.agents import ChatCompletionAgent, ChatHistoryAgentThread, OpenAIResponsesAgent
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
)
from semantic_kernel.functions import KernelArguments, kernel_function

TWO_ROUNDS = (
    'call City-get_weather {"city": "Oslo"} and call City-get_weather {"city": "Rome"}\n'
    'call City-get_weather {"city": "Bonn"}'
)


class Person(BaseModel):
    name: str
    born: int


class City:
    @kernel_function(description="The weather in a city.")
    def get_weather(self, city: str) -> str:
        return f"snow in {city}"


def responses_agent():
    return OpenAIResponsesAgent(
        ai_model_id="m", client=AsyncOpenAI(), name="A", instructions="Be short.", plugins=[City()]
    )


def chat_agent(**options):
    service = OpenAIChatCompletion(ai_model_id="m", async_client=AsyncOpenAI())
    return ChatCompletionAgent(service=service, name="A", plugins=[City()], **options)


async def turns(agent, prompts):
    """What an agent says to one prompt after another, in one thread."""
    answers, thread = [], None
    for prompt in prompts:
        response = await agent.get_response(messages=prompt, thread=thread)
        thread = response.thread
        answers.append(str(response.message))
    return answers


async def responses():
    return await turns(responses_agent(), ["I am Alice.", TWO_ROUNDS, "Who?"])


async def responses_streamed():
    pieces = [
        str(one.message) async for one in responses_agent().invoke_stream(messages=TWO_ROUNDS)
    ]
    return "".join(pieces)


async def chat():
    return await turns(chat_agent(), ["I am Bob.", TWO_ROUNDS, "Who?"])


async def chat_streamed():
    thread = ChatHistoryAgentThread()
    stream = chat_agent().invoke_stream(messages=TWO_ROUNDS, thread=thread)
    return "".join([str(one.message) async for one in stream])


async def structured():
    settings = OpenAIChatPromptExecutionSettings(response_format=Person)
    agent = chat_agent(arguments=KernelArguments(settings=settings))
    response = await agent.get_response(messages='say {"name": "Ada", "born": 1815}')
    return Person.model_validate_json(str(response.message)).model_dump()


run(vars(sys.modules[__name__]))
