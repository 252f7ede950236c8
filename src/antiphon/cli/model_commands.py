"""What ``model list`` and ``model pull`` do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from antiphon.cli import terminal_output
from antiphon.models.llama.model_download import (
    embedded_weights,
    local_models,
    pull_embedded,
    pull_hf,
)
from antiphon.settings import EMBEDDED, ModelSettings, Settings, load_settings

_MEGABYTE = 1_000_000


class ModelEntry(msgspec.Struct, frozen=True):
    """A model that can be named; ``size`` is in bytes, None where it is not a file here."""

    name: str
    default: bool
    kind: str
    where: str
    size: int | None


def list_models(flags: Mapping[str, str | None], *, as_json: bool) -> None:
    """Print the models: a table, JSON, or tab-separated to a pipe."""
    known = list(_model_entries(load_settings(flags)))
    if as_json:
        terminal_output.print_output(
            msgspec.json.format(msgspec.json.encode(known), indent=2).decode() + "\n"
        )
    elif sys.stdout.isatty():
        terminal_output.stdout_console().print(_table(known), soft_wrap=False)
    else:
        for model in known:
            mark = "default" if model.default else ""
            terminal_output.print_output(
                "\t".join((model.name, mark, model.kind, _size_text(model), model.where)) + "\n"
            )


def pull_model(what: str) -> None:
    """Fetch a model's weights, with a bar where a person looks. Raises ``ConfigError``."""
    if what == EMBEDDED:
        path = embedded_weights()
        if path is None:
            with terminal_output.show_spinner(f"fetching {EMBEDDED} (93 MB) ..."):
                path = pull_embedded()
        name = EMBEDDED
    else:
        path = _pull_hf(what)
        name = next((model.name for model in local_models() if model.path == path), path.stem)
    terminal_output.print_output(f"{path}\n")
    terminal_output.print_note(f"talk to it: antiphon chat --model {name}")


def _pull_hf(spec: str) -> Path:
    console = terminal_output.stderr_console()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(spec.rpartition("/")[2], total=None)
        return pull_hf(spec, lambda done, total: bar.update(task, completed=done, total=total))


def _model_entries(settings: Settings) -> Iterator[ModelEntry]:
    """Every model once: configured ones, files that were pulled, and the catch-all."""
    for name, model in settings.models.items():
        yield _configured_entry(name, model, settings.model)
    here = [one for one in local_models() if one.name not in settings.models]
    for local in here:
        if local.path != embedded_weights():
            default = local.name == settings.model
            yield ModelEntry(local.name, default, "llama", str(local.path), local.size)
    if settings.upstream is not None:
        names = {*settings.models, *(local.name for local in here)}
        default = settings.model is not None and settings.model not in names
        name = settings.model if default and settings.model else "(any other)"
        url = settings.upstream.base_url or ""
        yield ModelEntry(name, default, settings.upstream.kind, url, None)


def _configured_entry(name: str, model: ModelSettings, default: str | None) -> ModelEntry:
    path = model.path if model.path or model.kind != "llama" else embedded_weights()
    missing = "not here yet: antiphon model pull" if model.kind == "llama" else ""
    return ModelEntry(
        name,
        name == default,
        model.kind,
        model.base_url or (str(path) if path else missing),
        path.stat().st_size if path else None,
    )


def _table(known: list[ModelEntry]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("model", overflow="fold")
    table.add_column("", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("where", overflow="fold", ratio=1)
    for model in known:
        mark = "default" if model.default else ""
        table.add_row(
            Text(model.name),
            mark,
            _size_text(model),
            Text(terminal_output.strip_control_chars(model.where)),
        )
    return table


def _size_text(model: ModelEntry) -> str:
    return f"{model.size / _MEGABYTE:.0f} MB" if model.size is not None else ""
