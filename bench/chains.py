"""Stored conversations that a benchmark goes back to, and the proof that each history is whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from bench.fill_store import REPLY
from bench.history import History, reply_text
from bench.load import BenchError, Script, post
from bench.processes import ROOT
from bench.prose import prose_text
from bench.replies import response, response_id

_encode = msgspec.json.Encoder().encode


class Chain(msgspec.Struct):
    """A stored conversation: its number, how many turns it has, and the last one's id.

    ``filled``: how many of the turns were stored without a server.
    """

    number: int
    turns: int = 0
    last_id: str | None = None
    filled: int = 0

    def proof(self) -> str:
        """What the fake's answer to the next turn begins with."""
        history = History()
        for turn in range(self.turns):
            history.add("user", prose_text(self.number, turn))
            reply = REPLY if turn < self.filled else reply_text(history.proof())
            history.add("assistant", reply)
        history.add("user", prose_text(self.number, self.turns))
        return history.proof()


def next_turn(chain: Chain) -> bytes:
    """The request of a chain's next turn."""
    asked: dict[str, object] = {"model": "fake", "input": prose_text(chain.number, chain.turns)}
    if chain.last_id is not None:
        asked["previous_response_id"] = chain.last_id
    return post("/v1/responses", _encode(asked))


def grow(chains: Iterator[Chain], turns: int) -> Script:
    """Chain after chain from its beginning to so many turns, each reply checked."""
    for chain in chains:
        history = History()
        for turn in range(turns):
            body = yield next_turn(chain)
            history.add("user", prose_text(chain.number, turn))
            told = response(body)
            reply = reply_text(history.proof())
            if told.text != reply:
                raise BenchError(f"turn {turn} of {chain.number}: got {told.text!r}, not {reply!r}")
            history.add("assistant", reply)
            chain.turns, chain.last_id = turn + 1, told.id


def continue_each(chains: Sequence[Chain], bodies: list[tuple[str, bytes]]) -> Script:
    """One more turn on each chain. ``bodies`` gets the proof due of each reply, and the reply."""
    requests = [(next_turn(chain), chain.proof()) for chain in chains]
    for chain, (request, proof) in zip(chains, requests, strict=True):
        body = yield request
        chain.last_id = response_id(body)
        chain.turns += 1
        bodies.append((proof, body))


def check(bodies: list[tuple[str, bytes]]) -> None:
    """Raise ``BenchError`` unless the model was shown each chain's exact history."""
    for proof, body in bodies:
        text = response(body).text
        if text != reply_text(proof):
            raise BenchError(f"a continued chain: got {text!r}, not {proof!r}")
    bodies.clear()


def filled_chains(store: str, first: int, count: int, turns: int) -> list[Chain]:
    """Conversations that ``bench.fill_store`` adds to a store."""
    command = [sys.executable, "-m", "bench.fill_store", store, *map(str, (first, count, turns))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return [Chain(int(number), turns, last_id, filled=turns) for number, last_id in lines]
