"""Lines of the log."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from antiphon.logging_setup import JsonFormatter, RequestIdFilter, request_id

PROGRAM = """
import logging
from antiphon.logging_setup import log_to_stderr, request_id
log_to_stderr({level!r}, {shape!r})
request_id.set("r1")
logging.getLogger("antiphon.access").info("seen", extra={{"fields": {{"status": 200}}}})
logging.getLogger("antiphon.http").error("failed")
logging.getLogger("another").info("chatter")
logging.getLogger("another").warning("trouble")
"""


def said(level: str, shape: str) -> list[str]:
    program = PROGRAM.format(level=level, shape=shape)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def test_plain_lines_say_which_request_they_belong_to() -> None:
    first, second, third = said("info", "plain")
    assert first.endswith("INFO antiphon.access: seen [r1]")
    assert second.endswith("ERROR antiphon.http: failed [r1]")
    assert third.endswith("WARNING another: trouble [r1]")


def test_only_problems_are_logged_by_default() -> None:
    assert len(said("warning", "plain")) == 2
    assert len(said("error", "plain")) == 2


def test_json_lines() -> None:
    first, second, _ = map(json.loads, said("info", "json"))
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "antiphon.access",
        "message": "seen",
        "request_id": "r1",
        "status": 200,
    }
    assert second["level"] == "error"


def test_a_json_line_is_one_line_with_its_exception() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x", logging.ERROR, "f", 1, "it %s", ("failed",), sys.exc_info()
        )
    RequestIdFilter().filter(record)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["message"], line["request_id"]) == ("it failed", "-")
    assert "ValueError: a\nb" in line["exception"]


def test_outside_of_requests_there_is_no_id() -> None:
    assert request_id.get() == "-"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_levels(level: str) -> None:
    assert said(level, "plain")
