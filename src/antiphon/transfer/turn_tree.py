"""Turn tree: the turns of a chat that is a tree of messages. Pure functions.

A turn begins with what was said to the model and ends before the next such message behind an
answer. A question with several answers is as many turns of the same input, as if it had been
regenerated; an answer that several messages continue ends its turn, so that no answer is stored
twice.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Final

import msgspec

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    text_and_refusals_of,
)
from antiphon.transfer.source_chat import SourceChat, SourceMessage

#: So many messages of input may be stored again for each answer to them. It bounds what a file
#: of nothing but forks can grow to.
_MAX_REPEATED_INPUT: Final = 8


class SourceTurn(msgspec.Struct, frozen=True):
    """A turn of a chat. ``parent`` is the position of the turn that it continues.

    ``digest`` tells it from all others: of the chat, of the turns before it and of its messages.
    ``is_current``: it is on the branch that its program showed last.
    """

    digest: bytes
    parent: int | None
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    created_at: float | None
    ended_at: float | None
    model: str | None
    is_current: bool = False


def build_turns(chat: SourceChat) -> tuple[SourceTurn, ...]:
    """The turns of all branches: parents first, and of siblings the current one last.

    So the newest turn is the end of the branch that its program showed last.
    """
    return _TurnTree(chat).turns()


class _TurnTree:
    def __init__(self, chat: SourceChat) -> None:
        self._chat = chat
        self._has_ids = chat.has_ids
        self._messages = {message.id: message for message in chat.messages}
        self._children: dict[str | None, list[SourceMessage]] = defaultdict(list)
        for message in chat.messages:
            self._children[message.parent].append(message)
        self._current = self._current_path()
        #: By message: how many messages of its turn there are up to it.
        self._lengths: dict[str, int] = {}
        self._turns: list[SourceTurn] = []
        #: By the message that ends it.
        self._positions: dict[str, int] = {}

    def turns(self) -> tuple[SourceTurn, ...]:
        waiting = self._ordered(None)[::-1]
        while waiting:
            message = waiting.pop()
            goes_on = message.parent is not None and message.parent not in self._positions
            self._lengths[message.id] = self._lengths[message.parent or ""] + 1 if goes_on else 1
            if self._ends_turn(message):
                self._add_turn(message)
            waiting += self._ordered(message.id)[::-1]
        return tuple(self._turns)

    def _ordered(self, name: str | None) -> list[SourceMessage]:
        """The children of a message, the current one last."""
        return sorted(self._children[name], key=lambda one: one.id in self._current)

    def _current_path(self) -> frozenset[str]:
        path: set[str] = set()
        name = self._chat.current
        while name is not None and name in self._messages:
            path.add(name)
            name = self._messages[name].parent
        return frozenset(path)

    def _ends_turn(self, message: SourceMessage) -> bool:
        children = self._children[message.id]
        if not children:
            return True
        if message.is_input:
            return len(children) > 1 and self._lengths[message.id] > _MAX_REPEATED_INPUT
        return len(children) > 1 or children[0].is_input

    def _path_to(self, end: SourceMessage) -> tuple[SourceMessage, ...]:
        """The messages of the turn that ends with this one."""
        path = [end]
        while len(path) < self._lengths[end.id] and path[-1].parent is not None:
            path.append(self._messages[path[-1].parent])
        return tuple(path[::-1])

    def _add_turn(self, end: SourceMessage) -> None:
        path = self._path_to(end)
        above = path[0].parent
        parent = self._positions[above] if above is not None else None
        taken, given = _divide(path)
        times = [one.created_at for one in path if one.created_at is not None]
        models = [one.model for one in path if one.model and not one.is_input]
        self._positions[end.id] = len(self._turns)
        self._turns.append(
            SourceTurn(
                digest=self._digest(path, parent),
                parent=parent,
                input=taken,
                output=given,
                created_at=times[0] if times else None,
                ended_at=max(times) if times else None,
                model=models[-1] if models else self._chat.model,
                is_current=end.id in self._current,
            )
        )

    def _digest(self, path: tuple[SourceMessage, ...], parent: int | None) -> bytes:
        """A hash of the messages' names, or of their words where they have none.

        Not of items: how these are made may change.
        """
        above = self._turns[parent].digest if parent is not None else b""
        hasher = hashlib.sha256(b"antiphon import\0" + above)
        for text in (self._chat.source, self._chat.id or ""):
            hasher.update(_framed(text))
        for message in path:
            hasher.update(_framed(message.id))
            for item in () if self._has_ids else message.items:
                hasher.update(_framed(_words_of(item)))
        return hasher.digest()


def _framed(text: str) -> bytes:
    """A text with its length, so that no two lists of texts are the same bytes."""
    data = text.encode("utf-8", "replace")
    return len(data).to_bytes(8, "big") + data


def _words_of(item: Item) -> str:
    match item:
        case Message(content=content):
            return text_and_refusals_of(content)
        case FunctionCall(arguments=arguments):
            return arguments
        case FunctionCallOutput(output=output):
            return text_and_refusals_of(output)
        case Reasoning():
            return item.text
    return ""


def _divide(path: tuple[SourceMessage, ...]) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """The input and the output of a turn: outputs of an earlier turn's calls are input."""
    items = [(message.is_input, item) for message in path for item in message.items]
    at = 0
    while at < len(items) and (items[at][0] or isinstance(items[at][1], FunctionCallOutput)):
        at += 1
    return tuple(item for _, item in items[:at]), tuple(item for _, item in items[at:])
