"""The benchmark's own parts: fake, proxy and load generator work and count right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from bench.chains import Chain, check, continue_each, grow
from bench.history import MARK, History, reply_text, streamed_text, user_text
from bench.lab import BenchEnvironment, Contender, store_file
from bench.load import BenchError, Script, post
from bench.load_grpc import drive_grpc, messages_in
from bench.processes import ROOT
from bench.replies import streamed, text_of
from bench.report import Part, Report, Table, Target, as_json, as_markdown, sample
from bench.workloads import Conversations, Repeated, chat_request
from bench.workloads_grpc import RepeatedStream

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchEnvironment]:
    made = BenchEnvironment(tmp_path_factory.mktemp("lab"), quick=True)
    made.rounds, made.seconds, made.warm_up = 2, 0.05, 0.01
    yield made
    made.close()


def ask(lab: BenchEnvironment, request: bytes) -> bytes:
    bodies: list[bytes] = []

    def script() -> Script:
        bodies.append((yield request))

    lab.drive(lab.fake, [script()])
    return bodies[0]


def proof_of(*said: tuple[str, str]) -> str:
    history = History()
    for role, text in said:
        history.add(role, text)
    return history.proof()


def test_the_fakes_answer_proves_the_history(lab: BenchEnvironment) -> None:
    said = [("user", user_text(3, 1)), ("assistant", "one"), ("user", "two")]
    assert text_of("completions", ask(lab, chat_request(said))) == reply_text(proof_of(*said))
    changed = [*said[:1], ("assistant", "One"), *said[2:]]
    assert text_of("completions", ask(lab, chat_request(changed))) != reply_text(proof_of(*said))


def test_parts_count_as_their_text(lab: BenchEnvironment) -> None:
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    body = {"model": "fake", "messages": [{"role": "user", "content": parts}]}
    reply = ask(lab, post("/v1/chat/completions", msgspec.json.encode(body)))
    assert text_of("completions", reply) == reply_text(proof_of(("user", "hello")))


@pytest.mark.parametrize(("model", "chunks"), [("fake", 20), ("fake-3", 3), ("fake-4@1", 4)])
def test_a_models_name_chooses_its_stream(lab: BenchEnvironment, model: str, chunks: int) -> None:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    stream = ask(lab, post("/v1/chat/completions", msgspec.json.encode(body)))
    expected = streamed_text(proof_of(("user", "hello")), chunks)
    assert streamed("completions", stream) == (expected, chunks)
    with pytest.raises(BenchError, match="DONE"):
        streamed("completions", stream[:-20])


def test_direct_and_proxied_requests_are_counted_and_right(lab: BenchEnvironment) -> None:
    contenders = [
        Contender("direct", lab.fake, Repeated("completions")),
        Contender("proxy", lab.proxy, Repeated("completions")),
    ]
    lab.compare(contenders, 3)
    for contender in contenders:
        assert len(contender.rates) == 2
        assert min(contender.rates) > 0
        assert contender.events == [1, 1]
    assert contenders[0].ratio(contenders[0]).median == 1


def test_direct_and_proxied_streams_are_counted_and_right(lab: BenchEnvironment) -> None:
    contenders = [
        Contender("direct", lab.fake, Repeated("completions", chunks=50)),
        Contender("proxy", lab.proxy, Repeated("completions", chunks=50)),
    ]
    lab.compare(contenders, 3, units=50, mark=MARK)
    for contender in contenders:
        assert contender.events == [50, 50]
        assert 0 < contender.first_chunk_seconds[0] <= contender.latencies[0]


def once(request: bytes) -> Script:
    yield request


def told_another(asks: RepeatedStream, hears: RepeatedStream) -> Script:
    """The question of one and the answer for the other."""
    (asking,), (hearing,) = asks.scripts(1), hears.scripts(1)
    next(hearing)
    hearing.send((yield next(asking)))


def test_streams_over_grpc_are_counted_and_right(lab: BenchEnvironment) -> None:
    with lab.server(grpc=True) as server:
        contenders = [
            Contender("HTTP", server, Repeated("completions", chunks=50)),
            Contender("gRPC", server, RepeatedStream(50), drive_grpc),
            Contender("gRPC, stored", server, RepeatedStream(50, store=True), drive_grpc),
        ]
        lab.compare(contenders, 2, units=50, mark=MARK)
        for contender in contenders:
            assert min(contender.rates) > 0
            assert 1 <= contender.events[0] <= 50
            assert 0 < contender.first_chunk_seconds[0] <= contender.latencies[0]
        wrong = RepeatedStream(50)
        lab.drive(server, [told_another(RepeatedStream(49), wrong)], by=drive_grpc)
        with pytest.raises(BenchError, match="a stream"):
            wrong.check()
        with pytest.raises(BenchError, match="refused a stream"):
            lab.drive(server, [once(b"\xff")], by=drive_grpc)


def test_a_replys_messages_are_found_again() -> None:
    assert list(messages_in(b"\0\0\0\0\2ab\0\0\0\0\0\0\0\0\0\1c")) == [b"ab", b"", b"c"]


def test_a_refused_request_voids_the_run(lab: BenchEnvironment) -> None:
    with pytest.raises(BenchError, match="status 400"):
        ask(lab, post("/v1/chat/completions", b"{"))


def test_a_closed_connection_voids_the_run(lab: BenchEnvironment) -> None:
    with pytest.raises(BenchError, match="closed"):
        ask(lab, b"no HTTP at all\r\n\r\n")


def test_a_wrong_history_is_found() -> None:
    said = user_text(0, 0)
    reply = {"type": "message", "content": [{"text": reply_text(proof_of(("user", said)))}]}
    first = {"id": "resp_1", "status": "completed", "output": [reply]}
    talk = Conversations(2)
    talk.replies[0] = [msgspec.json.encode(first)]
    talk.check()
    forgetful = first | {"id": "resp_2", "previous_response_id": "resp_1"}
    talk.replies[0] = [msgspec.json.encode(turn) for turn in (first, forgetful)]
    with pytest.raises(BenchError, match="reply 1"):
        talk.check()


def test_a_report_shows_targets_met_and_missed() -> None:
    figures = sample([1.0, 3.0, 2.0])
    assert (figures.median, figures.low, figures.high, figures.rounds) == (2.0, 1.0, 3.0, 3)
    met, missed = Target("met", figures, least=2.0), Target("missed", figures, most=1.9)
    part = Part("x", "Things", [Table("T", [{"a": figures}, {"b": "text"}])], [met, missed])
    report = Report({"date": "today"}, [part])
    page = as_markdown(report)
    assert "| x | met | 2.00 (1.00-3.00) | at least 2.00 | pass |" in page
    assert "| x | missed | 2.00 (1.00-3.00) | at most 1.90 | **miss** |" in page
    assert "| a | b |" in page
    assert msgspec.json.decode(as_json(report), type=Report) == report


def test_chains_are_continued_after_a_restart_of_the_server_with_their_history(
    lab: BenchEnvironment,
) -> None:
    with lab.home() as home:
        filled = fill_some(home)
        grown = [Chain(1), Chain(2)]
        with lab.server_in(home) as server:
            lab.drive(server, [grow(iter(grown), 3)])
        assert [chain.turns for chain in grown] == [3, 3]
        bodies: list[tuple[str, bytes]] = []
        with lab.server_in(home) as server:
            lab.drive(server, [continue_each([*grown, filled], bodies)])
    check([*bodies])
    assert len(bodies) == 3
    with pytest.raises(BenchError, match="a continued chain"):
        check([("history=1:0", bodies[0][1])])


def fill_some(home: Path) -> Chain:
    """A chain of two turns, stored without a server."""
    command = [sys.executable, "-m", "bench.fill_store", str(store_file(home)), "9", "1", "2"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    number, last_id = done.stdout.split()
    return Chain(int(number), 2, last_id, filled=2)
