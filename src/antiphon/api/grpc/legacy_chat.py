"""``prompt_ide.StatelessChat``: what the first Chat SDK talks to."""

from __future__ import annotations

from antiphon.api.common.authorization import Principal
from antiphon.api.common.input_items import MAX_ITEMS
from antiphon.api.grpc.chat import Write, cancel_on_exit, merge_events
from antiphon.api.grpc.stream_throttle import StreamThrottle
from antiphon.core.events import RefusalDelta, TextDelta
from antiphon.core.items import Message, Role
from antiphon.core.turns import TurnRequest
from antiphon.errors import InvalidRequestError
from antiphon.protos.legacy_chat import ASSISTANT, HUMAN, StatelessResponse
from antiphon.protos.xai import Proto
from antiphon.turn.service import TurnService

_ROLES: dict[int, Role] = {HUMAN: "user", ASSISTANT: "assistant"}


class LegacyChatServicer:
    """The one method, over one service."""

    def __init__(self, service: TurnService, fun_prompt: str, throttle: StreamThrottle) -> None:
        self._service = service
        self._throttle = throttle
        self._prompts = {"": None, "fun": fun_prompt}

    async def add_response(self, caller: Principal, request: Proto, write: Write) -> None:
        """AddResponse: the answer to the last of the responses. Nothing is stored."""
        turn = self._turn_request(request, caller.tenant)
        async with caller.concurrency_slot():
            live = await self._service.start(turn)
        with cancel_on_exit([live]), self._throttle.open_stream() as rest:
            async for ((_, batch),) in merge_events([live], rest.remaining):
                text = "".join(
                    event.text for event in batch if isinstance(event, TextDelta | RefusalDelta)
                )
                if text:
                    piece = StatelessResponse(sender=ASSISTANT, message=text)
                    await write(piece.SerializeToString())
                    rest.start()

    def _turn_request(self, request: Proto, tenant: str) -> TurnRequest:
        if request.system_prompt_name not in self._prompts:
            raise InvalidRequestError(
                "The only system prompt with a name is 'fun'.", param="system_prompt_name"
            )
        if len(request.responses) > MAX_ITEMS:
            raise InvalidRequestError(
                f"Send at most {MAX_ITEMS} responses at once.",
                code="too_many_items",
                param="responses",
            )
        messages = []
        for index, response in enumerate(request.responses):
            role = _ROLES.get(response.sender)
            if role is None:
                raise InvalidRequestError(
                    "The sender is HUMAN or ASSISTANT.", param=f"responses[{index}].sender"
                )
            messages.append(Message(role, response.message))
        return TurnRequest(
            input=tuple(messages),
            model=request.model_name or None,
            instructions=self._prompts[request.system_prompt_name],
            store=False,
            stream=True,
            emit_created=False,
            tenant=tenant,
        )
