"""(terminal) The chat at a terminal: its start, its first word, its CPU and what it writes."""

from __future__ import annotations

from typing import Final

from rich.color import ColorSystem

from antiphon.cli.markdown.markdown_stream import MarkdownStream
from antiphon.cli.markdown.styled_line import render_spans
from bench.lab import BenchEnvironment
from bench.report import Part, Row, Sample, Table, Target, sample
from bench.terminal import COLUMNS, ChatTerminal, PacedUpstream

_STARTS: Final = 9
_PACE: Final = 0.01
_TEXT: Final = """\
Beginning with **lighthouses**, of which the *oldest* that still stands is in A Coruña:

## What a keeper does

1. He trims the wick, winds the clockwork and wipes the lens, every four hours.
2. He writes `the log`, in which the weather and the ships that pass have a line each.

> Never leave the light.

```python
def next_watch(hour: int) -> int:
    return (hour + 4) % 24  # six watches a day
```

And so on until the morning, when the lamp is put out and the curtains are drawn around it.

"""
_END: Final = "so it ends."
#: The beginning of the row below a prompt, where nothing is answered: the model's name, faint.
_IDLE: Final = "\x1b[0;2mm"


def measure(lab: BenchEnvironment) -> Part:
    text = _TEXT * (1 if lab.quick else 4) + _END
    # About as long as a model's tokens.
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
    starts = sample([_start(lab) for _ in range(3 if lab.quick else _STARTS)])
    quiet = [_answer(lab, pieces, typed="") for _ in range(lab.rounds)]
    typing = [_answer(lab, pieces, typed="a half-written question") for _ in range(lab.rounds)]
    styled = _styled_bytes(text)
    rows: list[Row] = [
        {
            "while it answers": name,
            "first word, ms": _column(answers, 0),
            "CPU, % of a core": _column(answers, 1),
            "bytes written, times the styled text": sample([one[2] / styled for one in answers]),
        }
        for name, answers in (("nothing is typed", quiet), ("a question is half typed", typing))
    ]
    note = (
        f"An answer of {len(pieces)} tokens in Markdown, 100 a second, at a terminal of {COLUMNS} "
        "columns. The first word: from the upstream's write to the terminal's read."
    )
    targets = [
        Target("terminal: prompt after the start, ms", starts, most=250.0),
        Target("terminal: first word, ms", _column(quiet, 0), most=20.0),
        Target("terminal: CPU at 100 tokens/s, % of a core", _column(quiet, 1), most=3.0),
        Target(
            "terminal: bytes written, times the styled text",
            sample([one[2] / styled for one in quiet]),
            most=1.5,
        ),
    ]
    tables = [
        Table("Start", [{"figure": "prompt after the start, ms", "value": starts}]),
        Table("An answer", rows, note),
    ]
    return Part("terminal", "The terminal", tables, targets)


def _column(answers: list[tuple[float, float, int]], index: int) -> Sample:
    return sample([one[index] for one in answers])


def _start(lab: BenchEnvironment) -> float:
    """Milliseconds from the start of the process to its prompt, with another turn stored."""
    with (
        lab.home() as home,
        ChatTerminal(home, ["--model", "m", "--base-url", "http://[::1]:9"]) as terminal,
    ):
        return (terminal.wait_for("> ") - terminal.started_at) * 1e3


def _answer(lab: BenchEnvironment, pieces: list[str], typed: str) -> tuple[float, float, int]:
    """Milliseconds to the first word, percent of a core, and the bytes written, of one answer."""
    upstream = PacedUpstream(pieces, _PACE)
    try:
        with (
            lab.home() as home,
            ChatTerminal(home, ["--model", "m", "--base-url", upstream.url]) as terminal,
        ):
            terminal.wait_for("> ")
            # The first answer loads what answers need.
            terminal.type("warm up\r")
            terminal.wait_for(_END)
            # The prompt may have been open all the time, as it was when the question came.
            terminal.wait_for(_IDLE, terminal.written.rindex(_END.encode()[-2:]))
            start = len(terminal.written)
            terminal.type("go on\r")
            terminal.wait_for("you may type on", start)
            terminal.type(typed)
            if typed:
                terminal.wait_for("Enter queues", start)
            start = len(terminal.written)
            shown = terminal.wait_for(pieces[0], start)
            cpu = terminal.cpu_ns()
            ended = terminal.wait_for(_END, start)
            cpu = terminal.cpu_ns() - cpu
            return (
                (shown - upstream.sent_at[0]) * 1e3,
                cpu / 1e7 / (ended - shown),
                len(terminal.written) - start,
            )
    finally:
        upstream.close()


def _styled_bytes(text: str) -> int:
    """The bytes of the whole text, rendered once."""
    stream = MarkdownStream(COLUMNS)
    stream.feed(text)
    stream.finish()
    lines = stream.take_lines()
    return sum(len(render_spans(line, ColorSystem.EIGHT_BIT).encode()) + 2 for line in lines)
