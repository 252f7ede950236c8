"""``antiphon chat`` with a prompt: one answer, for scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from antiphon.cli.one_shot_chat import read_prompt
from support.command_line import PROGRAM, SCRIPTED_CONFIG, Command, environment
from support.command_line_upstream import upstream


def test_only_the_answer_is_printed(antiphon: Command) -> None:
    ran = antiphon("chat", "-p", "Hello")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "You said: Hello\n(I was shown 1 messages.)\n"


def test_piped_text_is_the_question(antiphon: Command) -> None:
    ran = antiphon("chat", stdin="two\nlines\n")
    assert ran.out == "You said: two\nlines\n(I was shown 1 messages.)\n"


def test_piped_text_is_added_to_the_prompt(antiphon: Command) -> None:
    ran = antiphon("chat", "-p", "Sum it up:", stdin="the text\n")
    assert ran.out.startswith("You said: Sum it up:\n\nthe text\n")


def test_waiting_for_piped_input_is_explained(
    antiphon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        os.write(writing, b"late")
        os.close(writing)

    monkeypatch.setattr("antiphon.cli.terminal_output.print_note", note)
    monkeypatch.setattr("antiphon.cli.one_shot_chat._STDIN_NOTICE_DELAY", 0.0)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert read_prompt("Now:") == "Now:\n\nlate"
    assert notes == ["waiting for standard input to end (< /dev/null for none)"]


def test_input_that_is_not_utf8_is_refused(antiphon: Command) -> None:
    for args in (["-p", "caf\udce9"], ["-p", "x", "--system", "\udcff"]):
        ran = antiphon("chat", *args)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == "error: what is asked is not valid text\n"


def test_unencodable_characters_are_replaced_in_the_output(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(SCRIPTED_CONFIG)
    done = subprocess.run(
        [PROGRAM, "chat", "--config", "c.toml", "-p", "é 👋"],
        env={**environment(tmp_path), "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.stdout.startswith(b"You said: ? ?\n")
    assert (done.returncode, done.stderr) == (0, b"")


def test_continue_from_the_newest_or_a_given_response(antiphon: Command) -> None:
    antiphon("chat", "-p", "one")
    first = antiphon("list").out.split("\t")[0]
    assert "said: one" in antiphon("chat", "-c", "-p", "two").out
    assert "shown 5" in antiphon("chat", "--continue", "-p", "three").out
    branch = antiphon("chat", "--from", first, "-p", "other").out
    assert branch == "You said: other\nBefore that you said: one\n(I was shown 3 messages.)\n"


def test_instructions_stay_with_the_conversation(antiphon: Command) -> None:
    assert "shown 2" in antiphon("chat", "--system", "Be kind.", "-p", "one").out
    assert "shown 4" in antiphon("chat", "-c", "-p", "two").out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["-p", " "], 1, "nothing to ask"),
        ([], 1, "nothing to ask"),
        (["-c", "-p", "x"], 1, "no chat to continue"),
        (["--from", "resp_" + "0" * 32, "-p", "x"], 1, "resp_000"),
        (["--from", "nonsense", "-p", "x"], 1, "nonsense"),
        (["--model", "nobody", "-p", "x"], 1, "nobody"),
        (["--base-url", "http://127.0.0.1:9/v1", "-p", "x"], 0, ""),
        (["--store", "bogus", "-p", "x"], 1, "--store"),
        (["-c", "--from", "resp_1", "-p", "x"], 2, "exclude"),
        (["--resume", "-p", "x"], 2, "--resume"),
        (["--temperature", "3", "-p", "x"], 2, "temperature"),
        (["--max-tokens", "0", "-p", "x"], 2, "max-tokens"),
        (["--bogus"], 2, "--bogus"),
    ],
)
def test_a_usage_error_is_one_line(
    antiphon: Command, args: list[str], code: int, words: str
) -> None:
    ran = antiphon("chat", *args)
    assert ran.code == code
    assert words in ran.err
    if code == 1:
        assert ran.out == ""
        assert ran.err.count("\n") == 1


def test_a_failed_turn_is_one_line_and_exit_1(antiphon: Command) -> None:
    with upstream() as url:
        ran = antiphon("chat", "--base-url", url, "--model", "far", "-p", "refuse")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1


def test_answers_follow_a_schema(antiphon: Command, tmp_path: Path) -> None:
    closed = {"properties": {"a": {"type": "string"}}, "additionalProperties": False}
    table = [
        ({"title": "The order", "type": "object"}, "The_order", False),
        ({"type": "object", **closed, "required": ["a"]}, "s", True),
        ({"type": "object", **closed}, "s", False),
    ]
    with upstream() as url:
        far = ("chat", "--base-url", url, "--model", "far", "--schema", "s.json", "-p")
        for schema, name, is_strict in table:
            (tmp_path / "s.json").write_text(json.dumps(schema))
            ran = antiphon(*far, "json")
            assert (ran.code, ran.err) == (0, "")
            assert json.loads(ran.out) == {"schema_name": name, "is_strict": is_strict}
        ran = antiphon(*far, "no JSON")
        assert (ran.code, ran.err[:28]) == (1, "error: the answer is no JSON")
    for text, words in (("[]", "is needed"), ("{", "that is no JSON")):
        (tmp_path / "s.json").write_text(text)
        assert words in antiphon("chat", "--schema", "s.json", "-p", "x").err
    assert "No such file" in antiphon("chat", "--schema", "nowhere", "-p", "x").err


def test_an_upstream_needs_a_model_name(antiphon: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTIPHON_CONFIG")
    ran = antiphon("chat", "--base-url", "http://127.0.0.1:9/v1", "-p", "x")
    assert ran.code == 1
    assert "--model" in ran.err


def test_an_upstream_of_one_model_needs_no_name(
    antiphon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTIPHON_CONFIG")
    with upstream() as url:
        ran = antiphon("chat", "--base-url", url, "-p", "Hi")
    assert (ran.code, ran.err) == (0, "")


def test_internal_error_is_one_line_and_a_traceback_on_request(
    antiphon: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> str:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("antiphon.cli.one_shot_chat.read_prompt", broken)
    ran = antiphon("chat", "-p", "x")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "ANTIPHON_DEBUG=1" in ran.err
    monkeypatch.setenv("ANTIPHON_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        antiphon("chat", "-p", "x")


def start(home: Path, *args: str) -> subprocess.Popen[bytes]:
    (home / "c.toml").write_text(SCRIPTED_CONFIG)
    return subprocess.Popen(
        [PROGRAM, "chat", "--config", "c.toml", *args],
        env=environment(home),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_ctrl_c_stores_the_partial_answer(tmp_path: Path) -> None:
    with (
        upstream() as url,
        start(tmp_path, "--base-url", url, "--model", "far", "-p", "hang") as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        assert os.read(process.stdout.fileno(), 99) == b"one two three"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"\n"
        assert b"Traceback" not in process.stderr.read()
        assert process.wait() == 130
        said, complaint = start(tmp_path, "-c", "--model", "echo", "-p", "on").communicate()
    assert said == b"You said: on\nBefore that you said: hang\n(I was shown 3 messages.)\n"
    assert complaint == b""


def test_closed_output_pipe_prints_no_error(tmp_path: Path) -> None:
    with start(tmp_path, "-p", "line\n" * 20_000) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1
