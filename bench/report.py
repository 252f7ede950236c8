"""Figures, targets and tables, as JSON for programs and Markdown for people."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypeAlias

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One figure: its median over the rounds, and the least and most that were seen."""

    median: float
    low: float
    high: float
    rounds: int


Cell: TypeAlias = Sample | float | str
Row: TypeAlias = dict[str, Cell]


def sample(values: Sequence[float]) -> Sample:
    """The figure of all rounds."""
    return Sample(statistics.median(values), min(values), max(values), len(values))


class Target(msgspec.Struct, frozen=True):
    """What a figure has to reach: ``least`` and ``most`` bound its median."""

    what: str
    got: Sample
    least: float | None = None
    most: float | None = None

    @property
    def passed(self) -> bool:
        got = self.got.median
        return (self.least is None or got >= self.least) and (self.most is None or got <= self.most)


class Table(msgspec.Struct, frozen=True):
    title: str
    rows: list[Row]
    note: str = ""


class Part(msgspec.Struct, frozen=True):
    """One part of the benchmark; ``letter`` is how it is asked for."""

    letter: str
    title: str
    tables: list[Table]
    targets: list[Target]


class Report(msgspec.Struct, frozen=True):
    """A whole run. ``about`` says where, when and how it ran."""

    about: dict[str, str]
    parts: list[Part]


def _number(value: float) -> str:
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def show(cell: Cell) -> str:
    """A cell as a person reads it: ``median (low-high)``."""
    match cell:
        case str():
            return cell
        case Sample(median, low, high, rounds):
            spread = f" ({_number(low)}-{_number(high)})" if rounds > 1 else ""
            return _number(median) + spread
        case _:
            return _number(cell)


def as_grid(rows: Sequence[Row]) -> list[str]:
    """Rows as the lines of a Markdown table; its columns are all that any row has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(show(row.get(name, "")) for name in columns) + " |")
    return lines


def _target_row(part: Part, target: Target) -> Row:
    goal = [f"at least {_number(target.least)}"] if target.least is not None else []
    goal += [f"at most {_number(target.most)}"] if target.most is not None else []
    return {
        "part": part.letter,
        "figure": target.what,
        "measured": target.got,
        "target": ", ".join(goal),
        "": "pass" if target.passed else "**miss**",
    }


def as_markdown(report: Report) -> str:
    """The report as a page: targets first, then each part's tables."""
    lines = ["# Benchmark results", ""]
    lines += [f"- {key}: {value}" for key, value in report.about.items()]
    lines += ["", "Figures are medians over rounds, with (lowest-highest).", ""]
    rows = [_target_row(part, target) for part in report.parts for target in part.targets]
    if rows:
        lines += ["## Targets", "", *as_grid(rows), ""]
    for part in report.parts:
        lines += [f"## {part.letter}. {part.title}", ""]
        for table in part.tables:
            lines += [f"### {table.title}", "", *as_grid(table.rows), ""]
            if table.note:
                lines += [table.note, ""]
    return "\n".join(lines)


def as_json(report: Report) -> bytes:
    """The report with every number unrounded."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
