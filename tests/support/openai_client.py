"""The official ``openai`` client, and servers for it to talk to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from openai import OpenAI
from openai.types.responses import Response, ToolParam

from antiphon.turn.protocols import Model
from support.http_server import ThreadServer, serving

WEATHER: ToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


@contextmanager
def client_of(server: ThreadServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="none", timeout=30) as client:
        yield client


@contextmanager
def serving_client(model: Model) -> Iterator[tuple[ThreadServer, OpenAI]]:
    with serving(model) as server, client_of(server) as client:
        yield server, client


def validate_strictly(response: Response) -> Response:
    """The response, which has every field that its class knows to require."""
    return Response.model_validate(response.to_dict(mode="json"), strict=True)
