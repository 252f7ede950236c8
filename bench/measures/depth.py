"""(c) Turn 1, 50, 100 and 200 of one conversation, less the call upstream itself."""

from __future__ import annotations

from collections.abc import Sequence

from bench.history import user_text
from bench.lab import BenchEnvironment
from bench.load import Script, get
from bench.processes import Server
from bench.replies import response
from bench.report import Part, Row, Table, Target, sample
from bench.workloads import Conversations, chat_request

TURNS = 200
_SHOWN = (1, 50, 100, 200)
_GOAL_MS = 1.0
#: Turns on either side of a shown one that are counted with it. Turn 1 has no neighbours
#: like itself; so many first turns of other conversations are counted instead.
_AROUND = 3
_HELLO = get("/v1/models")


def measure(lab: BenchEnvironment) -> Part:
    each = 2 if lab.quick else 6
    rounds: list[list[tuple[list[float], list[float]]]] = []
    with lab.server() as server:
        for _ in range(lab.rounds):
            rounds.append([_conversation(lab, server) for _ in range(each)])
    own: dict[int, list[float]] = {}
    rows: list[Row] = []
    for turn in _SHOWN:
        through = [_near(turn, [pair[0] for pair in pairs]) for pairs in rounds]
        direct = [_near(turn, [pair[1] for pair in pairs]) for pairs in rounds]
        own[turn] = _differences(0.5, through, direct)
        rows.append(
            {
                "turn": str(turn),
                "antiphon ms": sample([_quantile(0.5, times) for times in through]),
                "fake called directly ms": sample([_quantile(0.5, times) for times in direct]),
                "antiphon's own ms": sample(own[turn]),
                "the same of the quickest tenth": sample(_differences(0.1, through, direct)),
            }
        )
    growth = [last - first for first, last in zip(own[1], own[TURNS], strict=True)]
    target = Target("turn 200 beyond turn 1, own ms", sample(growth), most=_GOAL_MS)
    return Part("c", "One long conversation", [Table("One at a time", rows)], [target])


def _conversation(lab: BenchEnvironment, server: Server) -> tuple[list[float], list[float]]:
    """Seconds of each turn, through antiphon and as a direct call of the same messages.

    The first turns of ``2 * _AROUND`` conversations lead both lists.
    """
    openings = Conversations(1)
    talk = Conversations(TURNS)
    scripts = [*openings.scripts(2 * _AROUND), *talk.scripts(1)]
    through = lab.drive(server, [_one_by_one(scripts)])
    messages = [("user", user_text(0, 0))]
    requests = [chat_request(messages)] * (2 * _AROUND)
    messages.clear()
    for turn, body in enumerate(talk.replies[0]):
        messages.append(("user", user_text(0, turn)))
        requests.append(chat_request(messages))
        messages.append(("assistant", response(body).text))
    openings.check()
    talk.check()
    direct = lab.drive(lab.fake, [_one_by_one([_each(requests)])])
    return through.latencies[1:], direct.latencies[1:]


def _one_by_one(scripts: Sequence[Script]) -> Script:
    # The first request of a connection pays for the connection; that is no turn's cost.
    yield _HELLO
    for script in scripts:
        yield from script


def _each(requests: Sequence[bytes]) -> Script:
    for request in requests:  # noqa: UP028 - a list cannot be sent the replies
        yield request


def _near(turn: int, runs: Sequence[Sequence[float]]) -> list[float]:
    """Milliseconds of the turns around one, over the conversations of one round, sorted."""
    first = 2 * _AROUND
    middle = first + turn - 1
    near = slice(0, first + 1) if turn == 1 else slice(middle - _AROUND, middle + _AROUND + 1)
    return sorted(value * 1e3 for run in runs for value in run[near])


def _quantile(share: float, times: Sequence[float]) -> float:
    return times[int(len(times) * share)]


def _differences(
    share: float, through: Sequence[Sequence[float]], direct: Sequence[Sequence[float]]
) -> list[float]:
    """What antiphon adds to the call, at one quantile, round by round."""
    return [
        _quantile(share, ours) - _quantile(share, theirs)
        for ours, theirs in zip(through, direct, strict=True)
    ]
