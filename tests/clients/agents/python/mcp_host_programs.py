"""PyPI's mcp (1.x, 2.x), fastmcp and mcp-use as hosts of antiphon, over stdio and over HTTP."""

import json
import os
import sys

from programs import run

STDIO = {"command": os.environ["ANTIPHON"], "args": ["mcp"], "env": dict(os.environ)}
URL = os.environ["OPENAI_BASE_URL"].replace("/v1", "/mcp")


async def two_turns(call):
    """Two turns of one conversation: the second knows the first."""
    first = await call("stateful_chat", {"prompt": "I am Alice."})
    second = await call("stateful_chat", {"prompt": "Who?", "response_id": first["response_id"]})
    return second["content"]


async def mcp_1():
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamablehttp_client

    outcomes = []
    for transport in (stdio_client(StdioServerParameters(**STDIO)), streamablehttp_client(URL)):
        async with transport as streams, ClientSession(streams[0], streams[1]) as session:
            await session.initialize()
            progress = []

            async def heard(done, total, message, progress=progress):
                progress.append(message)

            async def call(name, arguments, session=session, heard=heard):
                result = await session.call_tool(name, arguments, progress_callback=heard)
                assert json.loads(result.content[0].text) == result.structuredContent
                return result.structuredContent

            answer = await two_turns(call)
            tools = len((await session.list_tools()).tools)
            resources = (await session.list_resources()).resources
            read = (await session.read_resource(resources[0].uri)).contents[0].text
            prompts = [one.name for one in (await session.list_prompts()).prompts]
            outcomes.append([answer, tools, "I am Alice." in read, prompts, len(progress) > 0])
    return outcomes


async def mcp_2():
    from mcp import Client, StdioServerParameters

    outcomes = []
    for target in (StdioServerParameters(**STDIO), URL):
        async with Client(target) as client:
            progress = []

            async def heard(done, total, message, progress=progress):
                progress.append(message)

            async def call(name, arguments, client=client, heard=heard):
                result = await client.call_tool(name, arguments, progress_callback=heard)
                assert json.loads(result.content[0].text) == result.structured_content
                return result.structured_content

            answer = await two_turns(call)
            tools = len((await client.list_tools()).tools)
            resources = (await client.list_resources()).resources
            read = (await client.read_resource(resources[0].uri)).contents[0].text
            prompts = [one.name for one in (await client.list_prompts()).prompts]
            outcomes.append([answer, tools, "I am Alice." in read, prompts, len(progress) > 0])
    return outcomes


async def fastmcp():
    from fastmcp import Client

    outcomes = []
    for target in ({"mcpServers": {"antiphon": STDIO}}, URL):
        async with Client(target) as client:

            async def call(name, arguments, client=client):
                return (await client.call_tool(name, arguments)).data

            async def data(name, arguments, call=call):
                found = await call(name, arguments)
                return found if isinstance(found, dict) else vars(found)

            answer = await two_turns(data)
            resources = await client.list_resources()
            read = (await client.read_resource(resources[0].uri))[0].text
            prompts = [one.name for one in await client.list_prompts()]
            outcomes.append(
                [answer, len(await client.list_tools()), "I am Alice." in read, prompts]
            )
    return outcomes


async def mcp_use():
    from langchain_openai import ChatOpenAI
    from mcp_use import MCPAgent, MCPClient

    outcomes = []
    for server in (STDIO, {"url": URL}):
        client = MCPClient(config={"mcpServers": {"antiphon": server}})
        agent = MCPAgent(llm=ChatOpenAI(model="m"), client=client, max_steps=5)
        try:
            outcomes.append(await agent.run('call stateful_chat {"prompt": "say by MCP"}'))
        finally:
            await agent.close()
    return outcomes


run(vars(sys.modules[__name__]))
