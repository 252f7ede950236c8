"""Which turns of a long history a model is shown. Pure rules, no I/O.

A history is shortened by whole turns from its oldest end. Turns that are tied together
by calls and their outputs go or stay together, the newest turn stays, and so do system
messages. The result depends on nothing but the turns and the policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from antiphon.core.context_policies import ContextPolicy, Summarize, TokenBudget, Window
from antiphon.core.identity_cache import IdentityCache
from antiphon.core.turns import FunctionTool, Header
from antiphon.errors import ContextLengthExceededError
from antiphon.turn.message_rendering import RenderedTurn

#: After an overflow, aim this far below the limit: weights only approximate tokens.
_HEADROOM = 0.9

_encode = msgspec.json.Encoder().encode


def estimate_tokens(weight: int) -> int:
    """Tokens in so many bytes of messages: two for each seven bytes, which is rather many."""
    return -(-weight * 2 // 7)


def tokens_of(turn: RenderedTurn) -> int:
    """What a turn takes in a context: as reported, else estimated."""
    return estimate_tokens(turn.weight) if turn.tokens is None else turn.tokens


#: The bytes of the last requests' tools.
_tool_weights: IdentityCache[tuple[FunctionTool, ...], int] = IdentityCache(32)


def base_tokens(header: Header, few_shot: bytes) -> int:
    """An estimate for what is shown before the history: instructions, tools, a primer."""
    options = header.options
    weight = len((header.instructions or "").encode()) + len(few_shot)
    if options.tools:
        weight += _tool_weights.get(options.tools) or _tool_weights.put(
            options.tools, len(_encode(options.tools))
        )
    return estimate_tokens(weight)


def apply_policies(
    turns: Sequence[RenderedTurn], policies: Iterable[ContextPolicy], required_tokens: int
) -> Sequence[RenderedTurn]:
    """The turns that the policies let a model see, oldest first.

    ``start`` is the tokens that are shown in any case: ``least``, and what stands before
    the history. Raises ``ContextLengthExceededError`` if they alone are too many.
    """
    shown = turns
    for policy in policies:
        if isinstance(policy, Window):
            shown = _apply_window(shown, policy.max_messages)
        elif isinstance(policy, TokenBudget):
            shown = _apply_budget(shown, policy.max_tokens, required_tokens)
    return shown


def required_turns(turns: Sequence[RenderedTurn]) -> Sequence[RenderedTurn]:
    """What is shown in any case: the newest turn, what it is tied to, and system messages."""
    units = _group_by_calls(turns)
    return _drop_groups_before(units, len(units) - 1)


def check_budget(used: int, limit: int) -> None:
    """Refuse what does not fit its budget with nothing more to let go."""
    if used > limit:
        raise ContextLengthExceededError(
            f"What must be shown has about {used} tokens, and the budget is {limit}: "
            "say less at once, or allow more.",
            used=used,
            limit=limit,
        )


def budget_of(policies: Iterable[ContextPolicy]) -> int | None:
    """The smallest budget of tokens among the policies, None if there is none."""
    budgets = [policy.max_tokens for policy in policies if isinstance(policy, TokenBudget)]
    return min(budgets, default=None)


def should_summarize(turns: Sequence[RenderedTurn], policy: Summarize, base: int) -> bool:
    """Whether a history (the new turn included) has reached the policy's limit."""
    messages, tokens = policy.max_messages, policy.max_tokens
    if messages is not None and sum(one.message_count for one in turns) > messages:
        return True
    return tokens is not None and base + sum(map(tokens_of, turns)) > tokens


def split_for_summary(
    turns: Sequence[RenderedTurn], keep_turns: int
) -> tuple[Sequence[RenderedTurn], Sequence[RenderedTurn]]:
    """The turns to sum up, and the newest that stay: ``keep`` of them, or a few more.

    More, where a call would be parted from its output. A turn whose calls still wait
    for an output stays too.
    """
    cut = len(turns)
    while cut > 0 and (keep_turns > 0 or _is_call_split(turns, cut)):
        cut -= 1
        keep_turns -= turns[cut].turns if turns[cut].retained_turns is None else 0
    return turns[:cut], turns[cut:]


def has_unsummarized_turns(covered: Iterable[RenderedTurn]) -> bool:
    """Whether there is a turn among these that no summary stands for yet."""
    return any(one.turns and one.retained_turns is None for one in covered)


def apply_summaries(turns: Sequence[RenderedTurn]) -> Sequence[RenderedTurn]:
    """A whole history with its newest summary in place of what that stands for.

    A summary counts only while every turn that it stands for is still there: what was
    erased must not live on in it.
    """
    for index in range(len(turns) - 1, -1, -1):
        summary = turns[index]
        if summary.retained_turns is None:
            continue
        plain = [one for one in turns[:index] if one.retained_turns is None]
        cut = max(0, len(plain) - summary.retained_turns)
        if cut == summary.turns:
            return (
                *_system_messages_of(plain[:cut]),
                summary,
                *plain[cut:],
                *_without_summaries(turns[index + 1 :]),
            )
    return _without_summaries(turns)


def insert_summary(
    covered: Sequence[RenderedTurn], summary: RenderedTurn, retained: Sequence[RenderedTurn]
) -> list[RenderedTurn]:
    """What ``apply_summaries`` makes of a history that was just summed up, without reading it
    again.
    """
    systems = _system_messages_of(one for one in covered if one.retained_turns is None)
    return [*systems, summary, *retained]


def trim_by_ratio(
    turns: Sequence[RenderedTurn], used: int | None, limit: int | None
) -> Sequence[RenderedTurn]:
    """Let the oldest turns go after a model found the context too long.

    ``used`` and ``limit`` are the tokens it counted and can see; without them half
    of the weight goes. With nothing to let go, the same turns come back.
    """
    share = 0.5
    if used and limit:
        # Less than the limit can be too much where the answer needs room as well.
        share = _HEADROOM * min(1.0, limit / used)
    excess = sum(one.weight for one in turns) * (1 - share)
    retained: list[RenderedTurn] = []
    units = _group_by_calls(turns)
    for index, unit in enumerate(units):
        if excess > 0 and _is_droppable(unit) and index < len(units) - 1:
            excess -= max(0, sum(one.weight - one.system_weight for one in unit))
            retained += _system_messages_of(unit)
        else:
            retained += unit
    return retained


def drop_oldest_turns(turns: Sequence[RenderedTurn], excess: int) -> Sequence[RenderedTurn]:
    """Let turns of at least ``excess`` (above 0) tokens go, as far as there are any.

    The same object comes back where there is none.
    """
    units = _group_by_calls(turns)
    retained: list[RenderedTurn] = []
    dropped = False
    for unit in units[:-1]:
        if excess > 0 and _is_droppable(unit):
            excess, dropped = excess - max(0, sum(map(_tokens_freed, unit))), True
            retained += _system_messages_of(unit)
        else:
            retained += unit
    return [*retained, *units[-1]] if dropped else turns


def count_turns(turns: Iterable[RenderedTurn]) -> int:
    """How many turns are shown of a history: those of which more is there than what stays."""
    return sum(one.messages != one.system for one in turns)


def newest_turns(turns: Sequence[RenderedTurn], count: int) -> Sequence[RenderedTurn]:
    """A history with its newest ``count`` turns (``count_turns``), and what stays of the others.

    Whatever shortens a history leaves out its oldest turns, so that the count tells which.
    """
    for index in range(len(turns) - 1, -1, -1):
        count -= turns[index].messages != turns[index].system
        if count < 0:
            return [*_system_messages_of(turns[: index + 1]), *turns[index + 1 :]]
    return turns


def _apply_window(turns: Sequence[RenderedTurn], max_messages: int) -> Sequence[RenderedTurn]:
    total = 0
    units = _group_by_calls(turns)
    for index in range(len(units) - 1, -1, -1):
        total += sum(one.message_count for one in units[index])
        if total > max_messages and index < len(units) - 1:
            return _drop_groups_before(units, index + 1)
    return turns


def _apply_budget(
    turns: Sequence[RenderedTurn], max_tokens: int, required_tokens: int
) -> Sequence[RenderedTurn]:
    check_budget(required_tokens, max_tokens)
    total = required_tokens
    units = _group_by_calls(turns)
    for index in range(len(units) - 2, -1, -1):
        total += sum(map(_tokens_freed, units[index]))
        if total > max_tokens:
            return _drop_groups_before(units, index + 1)
    return turns


def _drop_groups_before(groups: Sequence[list[RenderedTurn]], first: int) -> Sequence[RenderedTurn]:
    """The units from ``first`` on, and what stays of those before."""
    gone = [one for unit in groups[:first] for one in unit]
    return [*_system_messages_of(gone), *(one for unit in groups[first:] for one in unit)]


def _is_droppable(group: Iterable[RenderedTurn]) -> bool:
    """Whether there is more in these turns than the system messages that stay."""
    return any(one.messages != one.system for one in group)


def _tokens_freed(turn: RenderedTurn) -> int:
    """Tokens that a turn gives back; fewer than none where its estimate is far off."""
    return tokens_of(turn) - estimate_tokens(turn.system_weight)


def _system_messages_of(turns: Iterable[RenderedTurn]) -> list[RenderedTurn]:
    """What stays of turns that go."""
    return [
        RenderedTurn(
            one.system,
            one.system,
            excess_bytes=one.system_excess_bytes,
            system_excess_bytes=one.system_excess_bytes,
            turns=0,
        )
        for one in turns
        if one.system
    ]


def _without_summaries(turns: Sequence[RenderedTurn]) -> Sequence[RenderedTurn]:
    if all(one.retained_turns is None for one in turns):
        return turns
    return [one for one in turns if one.retained_turns is None]


def _is_call_split(turns: Sequence[RenderedTurn], cut: int) -> bool:
    """Whether a cut before this index would part a call from its output, here or to come."""
    if cut == len(turns):
        return bool(turns[-1].open_calls)
    return _has_outputs_for(turns[cut], turns[cut - 1])


def _has_outputs_for(turn: RenderedTurn, before: RenderedTurn) -> bool:
    """Whether it brings outputs for calls of the turn before it."""
    return not turn.outputs.keys().isdisjoint(before.open_calls)


def _group_by_calls(turns: Sequence[RenderedTurn]) -> list[list[RenderedTurn]]:
    """Turns in groups, each group tied together by calls and their outputs."""
    units: list[list[RenderedTurn]] = []
    for segment in turns:
        if units and _has_outputs_for(segment, units[-1][-1]):
            units[-1].append(segment)
        else:
            units.append([segment])
    return units
