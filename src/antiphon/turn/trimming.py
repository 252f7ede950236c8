"""Which turns of a long history a model is shown. Pure rules, no I/O.

A history is shortened by whole turns from its oldest end. Turns that are tied together
by calls and their outputs go or stay together, the newest turn stays, and so do system
messages. The result depends on nothing but the turns and the policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from antiphon.core.context_policies import Policy, Summarize, TokenBudget, Window
from antiphon.core.turns import Header
from antiphon.errors import ContextLengthExceeded
from antiphon.turn.message_rendering import Segment

#: After an overflow, aim this far below the limit: weights only approximate tokens.
_HEADROOM = 0.9

_encode = msgspec.json.Encoder().encode


def estimate(weight: int) -> int:
    """Tokens in so many bytes of messages: two for each seven bytes, which is rather many."""
    return -(-weight * 2 // 7)


def tokens_of(segment: Segment) -> int:
    """What a turn takes in a context: as reported, else estimated."""
    return estimate(segment.weight) if segment.tokens is None else segment.tokens


def base_tokens(header: Header, primer: bytes) -> int:
    """An estimate for what is shown before the history: instructions, tools, a primer."""
    options = header.options
    weight = len((header.instructions or "").encode()) + len(primer)
    if options.tools:
        weight += len(_encode(options.tools))
    return estimate(weight)


def fit(segments: Sequence[Segment], context: Iterable[Policy], start: int) -> Sequence[Segment]:
    """The turns that the policies let a model see, oldest first.

    ``start`` is the tokens that are shown in any case: ``least``, and what stands before
    the history. Raises ``ContextLengthExceeded`` if they alone are too many.
    """
    shown = segments
    for policy in context:
        if isinstance(policy, Window):
            shown = _window(shown, policy.max_messages)
        elif isinstance(policy, TokenBudget):
            shown = _budget(shown, policy.max_tokens, start)
    return shown


def least(segments: Sequence[Segment]) -> Sequence[Segment]:
    """What is shown in any case: the newest turn, what it is tied to, and system messages."""
    units = _linked(segments)
    return _from(units, len(units) - 1)


def check_alone(used: int, limit: int) -> None:
    """Refuse what does not fit its budget with nothing more to let go."""
    if used > limit:
        raise ContextLengthExceeded(
            f"What must be shown has about {used} tokens, and the budget is {limit}: "
            "say less at once, or allow more.",
            used=used,
            limit=limit,
        )


def budget_of(context: Iterable[Policy]) -> int | None:
    """The smallest budget of tokens among the policies, None if there is none."""
    budgets = [policy.max_tokens for policy in context if isinstance(policy, TokenBudget)]
    return min(budgets, default=None)


def due(segments: Sequence[Segment], policy: Summarize, base: int) -> bool:
    """Whether a history (the new turn included) has reached the policy's limit."""
    messages, tokens = policy.max_messages, policy.max_tokens
    if messages is not None and sum(one.count for one in segments) > messages:
        return True
    return tokens is not None and base + sum(map(tokens_of, segments)) > tokens


def divide(segments: Sequence[Segment], keep: int) -> tuple[Sequence[Segment], Sequence[Segment]]:
    """The turns to sum up, and the newest that stay: ``keep`` of them, or a few more.

    More, where a call would be parted from its output. A turn whose calls still wait
    for an output stays too.
    """
    cut = len(segments)
    while cut > 0 and (keep > 0 or _tied(segments, cut)):
        cut -= 1
        keep -= segments[cut].turns if segments[cut].kept is None else 0
    return segments[:cut], segments[cut:]


def worth(covered: Iterable[Segment]) -> bool:
    """Whether there is a turn among these that no summary stands for yet."""
    return any(one.turns and one.kept is None for one in covered)


def fold(segments: Sequence[Segment]) -> Sequence[Segment]:
    """A whole history with its newest summary in place of what that stands for.

    A summary counts only while every turn that it stands for is still there: what was
    erased must not live on in it.
    """
    for place in range(len(segments) - 1, -1, -1):
        summary = segments[place]
        if summary.kept is None:
            continue
        plain = [one for one in segments[:place] if one.kept is None]
        cut = max(0, len(plain) - summary.kept)
        if cut == summary.turns:
            return (*_systems(plain[:cut]), summary, *plain[cut:], *_plain(segments[place + 1 :]))
    return _plain(segments)


def collapse(
    covered: Sequence[Segment], summary: Segment, kept: Sequence[Segment]
) -> list[Segment]:
    """What ``fold`` makes of a history that was just summed up, without reading it again."""
    systems = _systems(one for one in covered if one.kept is None)
    return [*systems, summary, *kept]


def shorten(segments: Sequence[Segment], used: int | None, limit: int | None) -> Sequence[Segment]:
    """Let the oldest turns go after a model found the context too long.

    ``used`` and ``limit`` are the tokens it counted and can see; without them half
    of the weight goes. With nothing to let go, the same turns come back.
    """
    share = 0.5
    if used and limit:
        # Less than the limit can be too much where the answer needs room as well.
        share = _HEADROOM * min(1.0, limit / used)
    excess = sum(one.weight for one in segments) * (1 - share)
    kept: list[Segment] = []
    units = _linked(segments)
    for place, unit in enumerate(units):
        if excess > 0 and _may_go(unit) and place < len(units) - 1:
            excess -= max(0, sum(one.weight - one.staying for one in unit))
            kept += _systems(unit)
        else:
            kept += unit
    return kept


def drop_oldest(segments: Sequence[Segment], excess: int) -> Sequence[Segment]:
    """Let turns of at least ``excess`` (above 0) tokens go, as far as there are any.

    The same object comes back where there is none.
    """
    units = _linked(segments)
    kept: list[Segment] = []
    dropped = False
    for unit in units[:-1]:
        if excess > 0 and _may_go(unit):
            excess, dropped = excess - max(0, sum(map(_gain, unit))), True
            kept += _systems(unit)
        else:
            kept += unit
    return [*kept, *units[-1]] if dropped else segments


def turns_in(segments: Iterable[Segment]) -> int:
    """How many turns are shown of a history: those of which more is there than what stays."""
    return sum(one.messages != one.system for one in segments)


def newest(segments: Sequence[Segment], count: int) -> Sequence[Segment]:
    """A history with its newest ``count`` turns (``turns_in``), and what stays of the others.

    Whatever shortens a history leaves out its oldest turns, so that the count tells which.
    """
    for place in range(len(segments) - 1, -1, -1):
        count -= segments[place].messages != segments[place].system
        if count < 0:
            return [*_systems(segments[: place + 1]), *segments[place + 1 :]]
    return segments


def _window(segments: Sequence[Segment], most: int) -> Sequence[Segment]:
    total = 0
    units = _linked(segments)
    for place in range(len(units) - 1, -1, -1):
        total += sum(one.count for one in units[place])
        if total > most and place < len(units) - 1:
            return _from(units, place + 1)
    return segments


def _budget(segments: Sequence[Segment], most: int, start: int) -> Sequence[Segment]:
    check_alone(start, most)
    total = start
    units = _linked(segments)
    for place in range(len(units) - 2, -1, -1):
        total += sum(map(_gain, units[place]))
        if total > most:
            return _from(units, place + 1)
    return segments


def _from(units: Sequence[list[Segment]], first: int) -> Sequence[Segment]:
    """The units from ``first`` on, and what stays of those before."""
    gone = [one for unit in units[:first] for one in unit]
    return [*_systems(gone), *(one for unit in units[first:] for one in unit)]


def _may_go(unit: Iterable[Segment]) -> bool:
    """Whether there is more in these turns than the system messages that stay."""
    return any(one.messages != one.system for one in unit)


def _gain(segment: Segment) -> int:
    """Tokens that a turn gives back; fewer than none where its estimate is far off."""
    return tokens_of(segment) - estimate(segment.staying)


def _systems(segments: Iterable[Segment]) -> list[Segment]:
    """What stays of turns that go."""
    return [
        Segment(one.system, one.system, bulk=one.system_bulk, system_bulk=one.system_bulk, turns=0)
        for one in segments
        if one.system
    ]


def _plain(segments: Sequence[Segment]) -> Sequence[Segment]:
    if all(one.kept is None for one in segments):
        return segments
    return [one for one in segments if one.kept is None]


def _tied(segments: Sequence[Segment], cut: int) -> bool:
    """Whether a cut before this place would part a call from its output, here or to come."""
    if cut == len(segments):
        return bool(segments[-1].calls)
    return _answers(segments[cut], segments[cut - 1])


def _answers(segment: Segment, before: Segment) -> bool:
    """Whether it brings outputs for calls of the turn before it."""
    return not segment.answers.keys().isdisjoint(before.calls)


def _linked(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Turns in groups, each group tied together by calls and their outputs."""
    units: list[list[Segment]] = []
    for segment in segments:
        if units and _answers(segment, units[-1][-1]):
            units[-1].append(segment)
        else:
            units.append([segment])
    return units
