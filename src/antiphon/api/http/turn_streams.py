"""Turn streams: send the stream of a turn from wherever it runs, in the form of either API."""

from __future__ import annotations

from starlette.types import Scope, Send

from antiphon.api.common.node_client import NodeClient
from antiphon.api.http.asgi_responses import StreamHead
from antiphon.api.http.completion_stream import send_completion_stream
from antiphon.api.http.node_relay import AnyStreamOptions, NodeRelay
from antiphon.api.http.response_stream import StreamOptions, send_stream
from antiphon.turn.replay import Replay
from antiphon.turn.running_turns import RunningTurn
from antiphon.turn.service import TurnService


class TurnStreams:
    """The streams of one service's turns, and of those that other nodes run."""

    def __init__(self, service: TurnService, nodes: NodeClient | None) -> None:
        self._service = service
        self._nodes = nodes

    async def send(
        self,
        tenant: str,
        turn: RunningTurn | Replay,
        scope: Scope,
        send: Send,
        options: AnyStreamOptions,
    ) -> None:
        """Send a turn's stream; ``options`` say of which API."""
        head = StreamHead(send)
        if isinstance(turn, Replay) and turn.is_running and self._nodes is not None:
            relay = NodeRelay(self._nodes, send, head, options)
            if await relay.pass_on(tenant, turn.response_id):
                return
            options = relay.remaining_options()
            turn = await self._service.subscribe(tenant, turn.response_id)
        if isinstance(options, StreamOptions):
            await send_stream(turn, scope, send, options, head)
        else:
            await send_completion_stream(turn, scope, send, options, head)
