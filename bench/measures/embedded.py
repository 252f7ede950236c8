"""(f) The embedded model: antiphon against llama.cpp driven directly, and KV reuse."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import msgspec

from bench.direct_llama import Answer
from bench.lab import BenchEnvironment
from bench.load import BenchError, Script, post
from bench.processes import ROOT, Server, pinned
from bench.replies import response, response_id, streamed, text_of
from bench.report import Part, Row, Table, Target, sample
from bench.workloads import expect

_TOKENS = 128
_GOAL = 0.95
_TURNS = 50
_SHOWN = (1, 10, 50)
# The last token of an answer is sampled but not yet computed: the next turn does that.
_SLACK_TOKENS = 1
# No example turns in front, so that both are asked the very same.
_PLAIN = 'model = "plain"\n[models.plain]\nkind = "llama"\nprimer = false\n'
_PRODUCT = 'model = "smollm2"\n'
_SUBJECTS = ("a lighthouse", "a clockmaker", "a river", "two sisters", "a lost letter", "an island")
_encode = msgspec.json.Encoder().encode


def measure(lab: BenchEnvironment) -> Part:
    table, targets = _speed(lab)
    reuse_table, reuse_target = _reuse(lab)
    return Part("f", "The embedded model", [table, reuse_table], [*targets, reuse_target])


class _Direct:
    """llama.cpp in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ask(self, request: dict[str, object]) -> Answer:
        if self._process.stdin is None or self._process.stdout is None:
            raise BenchError("llama.cpp has no pipes")
        self._process.stdin.write(_encode(request) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("llama.cpp ended early")
        return msgspec.json.decode(line, type=Answer)


@contextlib.contextmanager
def _direct(lab: BenchEnvironment) -> Iterator[_Direct]:
    threads = max(1, len(lab.all_cores or {0}) - 1)
    command = [sys.executable, "-m", "bench.direct_llama", str(threads)]
    with (
        pinned(lab.all_cores),
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        ) as process,
    ):
        yield _Direct(process)


def _question(place: int, stream: bool) -> dict[str, object]:
    subject = _SUBJECTS[place % len(_SUBJECTS)]
    question = f"Tell me a very long story about {subject}. Leave nothing out. ({place})"
    asked: dict[str, object] = {
        "model": "plain",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": _TOKENS,
    }
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked


def _speed(lab: BenchEnvironment) -> tuple[Table, list[Target]]:
    rates: dict[tuple[str, bool], list[float]] = {
        (who, stream): [] for who in ("llama.cpp", "antiphon") for stream in (False, True)
    }
    with _direct(lab) as direct, lab.embedded(_PLAIN) as server:
        for place in range(lab.rounds + 1):
            for stream in (False, True):
                # A question of its own each time: neither finds it in its cache.
                asked = _question(2 * place + stream, stream)
                told = direct.ask(asked)
                text, seconds = _through(lab, server, asked, stream)
                expect("antiphon's answer", text, told.text)
                if place == 0:
                    continue
                rates["llama.cpp", stream].append(told.tokens / told.seconds)
                rates["antiphon", stream].append(told.tokens / seconds)
    rows: list[Row] = []
    targets: list[Target] = []
    for stream in (False, True):
        pairs = zip(rates["antiphon", stream], rates["llama.cpp", stream], strict=True)
        ratio = sample([ours / theirs for ours, theirs in pairs])
        how = "streamed" if stream else "not streamed"
        rows.append(
            {
                "": how,
                "llama.cpp tokens/s": sample(rates["llama.cpp", stream]),
                "antiphon tokens/s": sample(rates["antiphon", stream]),
                "ratio": ratio,
            }
        )
        targets.append(Target(f"tokens/s, {how}, x llama.cpp", ratio, _GOAL))
    note = f"Up to {_TOKENS} tokens, greedy, prompt included; both wrote the same text."
    return Table("Speed", rows, note), targets


def _through(
    lab: BenchEnvironment, server: Server, asked: dict[str, object], stream: bool
) -> tuple[str, float]:
    """antiphon's text, and the seconds until its end."""
    bodies: list[bytes] = []

    def script() -> Script:
        bodies.append((yield post("/v1/chat/completions", _encode(asked))))

    tally = lab.drive(server, [script()])
    text = streamed("completions", bodies[0])[0] if stream else text_of("completions", bodies[0])
    return text, tally.latencies[0]


def _reuse(lab: BenchEnvironment) -> tuple[Table, Target]:
    bodies: list[bytes] = []

    def script() -> Script:
        previous = None
        for turn in range(_TURNS):
            asked: dict[str, object] = {
                "input": f"Here is fact number {turn}: {turn} times 7 is {7 * turn}. And now?",
                "temperature": 0,
                "max_output_tokens": 24,
            }
            if previous is not None:
                asked["previous_response_id"] = previous
            bodies.append((yield post("/v1/responses", _encode(asked))))
            previous = response_id(bodies[-1])

    with lab.embedded(_PRODUCT) as server:
        tally = lab.drive(server, [script()])
    rows: list[Row] = []
    excess: list[float] = []
    before = 0
    for turn, body in enumerate(bodies, 1):
        usage = response(body).usage
        if usage is None:
            raise BenchError(f"turn {turn} came without usage")
        prefilled = usage.input_tokens - usage.input_tokens_details.cached_tokens
        own = usage.input_tokens - before
        before = usage.input_tokens + usage.output_tokens
        excess.append(prefilled - own)
        if turn in _SHOWN:
            rows.append(
                {
                    "turn": str(turn),
                    "tokens shown": str(usage.input_tokens),
                    "new in this turn": str(own),
                    "prefilled": str(prefilled),
                    "seconds": tally.latencies[turn - 1],
                }
            )
    target = Target(
        "most tokens prefilled beyond a turn's own", sample([max(excess)]), most=_SLACK_TOKENS
    )
    return Table(f"{_TURNS} turns of one conversation", rows), target
