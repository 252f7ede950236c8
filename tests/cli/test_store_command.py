"""``antiphon store copy``."""

from __future__ import annotations

import json

from support.command_line import Command


def test_a_store_is_copied_and_the_copy_is_used(antiphon: Command) -> None:
    assert antiphon("chat", "-p", "Remember the piano.").code == 0
    done = antiphon("store", "copy", "sqlite:turns.db", "sqlite:copy.db")
    assert done.code == 0, done.err
    assert done.out.startswith("1 chats with 1 turns are the same in both stores")
    again = json.loads(antiphon("store", "copy", "sqlite:turns.db", "sqlite:copy.db", "--json").out)
    assert (again["turns"], again["rewritten"], again["changing"]) == (1, 0, 0)
    assert again["digest"] in done.out
    shown = antiphon("search", "piano", "--store", "sqlite:copy.db")
    assert "piano" in shown.out
    # From then on it is a store of its own.
    refused = antiphon("store", "copy", "sqlite:turns.db", "sqlite:copy.db")
    assert refused.code == 1
    assert "of its own: name an empty one" in refused.err


def test_a_copy_that_cannot_be_is_one_line(antiphon: Command) -> None:
    for source, target, message in (
        ("sqlite:none.db", "sqlite:copy.db", "There is no store"),
        ("sqlite:a.db", "sqlite:./a.db", "These are one store"),
        ("memory:", "sqlite:copy.db", "nothing in a store in memory"),
        ("mysql://u:s3cret@h/d", "sqlite:copy.db", "sqlite:PATH, postgresql://… or memory:"),
    ):
        failed = antiphon("store", "copy", source, target)
        assert failed.code == 1
        assert message in failed.err, failed.err
        assert "s3cret" not in failed.err + failed.out
        assert len(failed.err.strip().splitlines()) == 1
