"""What a completion says of the settings that it was made with. Pure."""

from __future__ import annotations

from antiphon.core.turns import SEALED, McpTool, Response
from antiphon.protos.xai import Proto, chat_pb2
from antiphon.protos.xai_options import EFFORTS, choice_proto, format_proto, tool_proto


def settings_of(response: Response) -> Proto:
    """A ``RequestSettings``. What the model decided by itself is left out."""
    options = response.header.options
    tools = [tool_proto(tool) for tool in options.tools] + [
        _server_proto(server) for server in options.mcp_servers
    ]
    return chat_pb2.RequestSettings(
        max_tokens=options.max_output_tokens,
        parallel_tool_calls=options.parallel_tool_calls,
        previous_response_id=response.previous_response_id,
        reasoning_effort=EFFORTS.get(options.reasoning_effort or ""),
        temperature=options.temperature,
        response_format=format_proto(options.text_format),
        tool_choice=choice_proto(options.tool_choice) if tools else None,
        tools=tools,
        top_p=options.top_p,
        user=options.user,
        store_messages=response.store,
        use_encrypted_content=SEALED in options.include,
    )


def _server_proto(server: McpTool) -> Proto:
    """An MCP server, without anything that it is reached with."""
    return chat_pb2.Tool(
        mcp=chat_pb2.MCP(
            server_label=server.server_label,
            server_description=server.server_description,
            server_url=server.server_url,
            allowed_tool_names=server.allowed_tools,
        )
    )
