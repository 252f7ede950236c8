"""Turn commands: what moves through a chat's turns: /branch, /back, /edit, /retry, /siblings."""

from __future__ import annotations

import contextlib

from antiphon.cli.interactive.answer_view import print_turn
from antiphon.cli.interactive.chat_loop import ChatLoop, Handler
from antiphon.cli.interactive.chat_session import answer_text, asks, user_text
from antiphon.core.items import shorten
from antiphon.core.turns import DEFAULT_TENANT, Response
from antiphon.errors import InvalidRequestError, NotFoundError

#: What a turn without a question shows in place of one.
DECISION = "(a decision on a call)"
_MAX_MODELS = 6
_MAX_OPENING = 70


async def begin_new(loop: ChatLoop, _: str) -> None:
    loop.session.leave_chat()
    session = loop.session
    instructions = " by your instructions" if session.instructions else ""
    loop.output.note(f"a new chat, {session.model}{instructions}; the old one stays stored")


async def branch(loop: ChatLoop, argument: str) -> None:
    """Go on from an earlier turn."""
    turns, at = await _find_question(loop, _number(argument, default=1))
    turn = turns[at + 1] if at + 1 < len(turns) else None
    loop.session.head = turn.id if turn else None
    if turn is None:
        loop.output.note("before the first question; what came after stays as a branch")
        return
    loop.output.note(f"going on after: {shorten(user_text(turn.input) or DECISION, _MAX_OPENING)}")


async def back(loop: ChatLoop, argument: str) -> None:
    """Ask an earlier question in other words."""
    number = _number(argument, default=1)
    turns, at = await _find_question(loop, number)
    await loop.edit(turns[at])


async def edit(loop: ChatLoop, argument: str) -> None:
    turns, at = await _find_question(loop)
    if not argument:
        await loop.edit(turns[at])
        return
    loop.output.question(argument)
    if await loop.answer(loop.session.start_edited(turns[at], argument)) is None:
        loop.give_back(f"/edit {argument}")


async def retry(loop: ChatLoop, argument: str) -> None:
    """Answer the last question again, by one model or several.

    An answer that failed after tools had run is gone on with instead: they do not run twice.
    """
    turn = await loop.session.turn_with_results()
    start = loop.session.start_behind
    if turn is None:
        turns, at = await _find_question(loop)
        turn, start = turns[at], loop.session.start_again
    names = argument.split()[:_MAX_MODELS]
    for name in names or [turn.header.model]:
        if names:
            loop.output.note(f"{name}:")
        await loop.answer(start(turn, name))


async def siblings(loop: ChatLoop, argument: str) -> None:
    """List the turns that continue what the newest one continues, or go on from one."""
    turns = await siblings_of(loop, await loop.session.last_turn())
    if argument:
        number = _number(argument, default=1)
        if number > len(turns):
            plural = "s" * (len(turns) != 1)
            raise InvalidRequestError(f"the question has {len(turns)} answer{plural}")
        await loop.go_to(turns[number - 1].id)
        return
    for number, turn in enumerate(turns, 1):
        mark = "→" if turn.id == loop.session.head else " "
        label = f"{mark} {number}  "
        question = shorten(user_text(turn.input) or DECISION, _MAX_OPENING // 2)
        answer = shorten(answer_text(turn), _MAX_OPENING)
        loop.output.entry(label, f"{turn.model}  {question}: {answer}")
    if len(turns) > 1:
        loop.output.note("/siblings N goes on from one of them")


async def compare(loop: ChatLoop, _: str) -> None:
    """Print the answers beside the newest one, each under its model."""
    turns = await siblings_of(loop, await loop.session.last_turn())
    for number, turn in enumerate(turns, 1):
        loop.output.note(f"{number} of {len(turns)}: {turn.model}")
        print_turn(loop.output, turn, "")
        loop.output.lines([()])


async def siblings_of(loop: ChatLoop, turn: Response) -> list[Response]:
    """A turn and those beside it, oldest first."""
    found = await loop.engine.stores.chats.siblings(DEFAULT_TENANT, turn.id)
    reader = loop.session.service.reader
    turns = []
    for one in found or ():
        # One that is erased meanwhile is one less.
        with contextlib.suppress(NotFoundError):
            turns.append(await reader.response(DEFAULT_TENANT, one.response_id))
    return turns


async def _find_question(loop: ChatLoop, number: int = 1) -> tuple[list[Response], int]:
    """The newest turns, the one before it included, and where the ``number``th question is.

    Turns that only decided on calls are none. Raises ``InvalidRequestError``.
    """
    limit = number + 1
    while True:
        turns = await loop.session.newest_turns(limit)
        positions = [at for at, turn in enumerate(turns) if asks(turn)]
        has_found = len(positions) >= number and positions[number - 1] + 1 < limit
        if has_found or len(turns) < limit:
            break
        limit *= 2
    if not turns:
        await loop.session.last_turn()
    if len(positions) < number:
        plural = "s" * (len(positions) != 1)
        raise InvalidRequestError(f"the chat has {len(positions)} question{plural}")
    return turns, positions[number - 1]


def _number(argument: str, *, default: int) -> int:
    if not argument:
        return default
    if not argument.isdecimal() or int(argument) == 0:
        raise InvalidRequestError(f"a number of 1 or more, not {argument!r}")
    return int(argument)


HANDLERS: dict[str, Handler] = {
    "new": begin_new,
    "branch": branch,
    "back": back,
    "edit": edit,
    "retry": retry,
    "siblings": siblings,
    "compare": compare,
}
