"""Model commands: ``antiphon model list`` and ``pull``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from antiphon.cli import terminal_output
from antiphon.cli.engine_runner import Flags
from antiphon.cli.options import Config, Json, Model
from antiphon.cli.terminal_output import Column
from antiphon.settings import EMBEDDED, ModelSettings, Settings, load_settings

_MEGABYTE = 1_000_000
_COLUMNS = (
    Column("model", is_wrapped=True),
    Column(""),
    Column("size", is_number=True),
    Column("where", is_wrapped=True),
)

app = typer.Typer(
    help="See what models there are, and fetch one.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class ModelEntry(msgspec.Struct, frozen=True):
    """A model that can be named; ``size`` is in bytes, None where it is not a file here."""

    name: str
    default: bool
    kind: str
    where: str
    size: int | None


@app.command("list")
def list_(as_json: Json = False, model: Model = None, config: Config = None) -> None:
    """List the models that can be named.

    These are the configured ones, and those on this machine.
    """
    list_models({"model": model, "config": config}, as_json=as_json)


@app.command()
def pull(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="smollm2, or hf:OWNER/REPO/FILE.gguf from the Hugging Face hub."
        ),
    ] = "smollm2",
) -> None:
    """Fetch a model's weights.

    An attempt that was cut off is gone on with.
    """
    pull_model(what)


def list_models(flags: Flags, *, as_json: bool) -> None:
    """Print the models: a table, JSON, or tab-separated to a pipe."""
    entries = list(_model_entries(load_settings(flags)))
    if as_json:
        terminal_output.print_json(entries)
    elif sys.stdout.isatty():
        rows = [_model_row(entry) for entry in entries]
        terminal_output.print_table(
            _COLUMNS, [(name, mark, size, where) for name, mark, _, size, where in rows]
        )
    else:
        terminal_output.print_tsv([_model_row(entry) for entry in entries])


def pull_model(what: str) -> None:
    """Fetch a model's weights, with a progress bar on a terminal. Raises ``ConfigError``."""
    from antiphon.models.llama import model_download  # loaded on first use

    if what == EMBEDDED:
        path = model_download.embedded_weights()
        if path is None:
            with terminal_output.show_spinner(f"fetching {EMBEDDED} (93 MB) ..."):
                path = model_download.pull_embedded()
        name = EMBEDDED
    else:
        path = _pull_hf(what)
        names = (model.name for model in model_download.local_models() if model.path == path)
        name = next(names, path.stem)
    terminal_output.print_output(f"{path}\n")
    terminal_output.print_note(f"talk to it: antiphon chat --model {name}")


def _pull_hf(spec: str) -> Path:
    from rich import progress  # loaded on first use

    from antiphon.models.llama.model_download import pull_hf  # loaded on first use

    console = terminal_output.stderr_console()
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(spec.rpartition("/")[2], total=None)
        return pull_hf(spec, lambda done, total: bar.update(task, completed=done, total=total))


def _model_entries(settings: Settings) -> Iterator[ModelEntry]:
    """Every model once: configured ones, files that were pulled, and the catch-all."""
    from antiphon.models.llama import model_download  # loaded on first use

    for name, model in settings.models.items():
        yield _configured_entry(name, model, settings.model)
    local = [model for model in model_download.local_models() if model.name not in settings.models]
    for file in local:
        default = file.name == settings.model
        yield ModelEntry(file.name, default, "llama", str(file.path), file.size)
    if settings.upstream is not None:
        names = {*settings.models, *(file.name for file in local)}
        default = settings.model is not None and settings.model not in names
        name = settings.model if default and settings.model else "(any other)"
        url = settings.upstream.base_url or ""
        yield ModelEntry(name, default, settings.upstream.kind, url, None)


def _configured_entry(name: str, model: ModelSettings, default: str | None) -> ModelEntry:
    from antiphon.models.llama.model_download import embedded_weights  # loaded on first use

    path = model.path if model.path or model.kind != "llama" else embedded_weights()
    missing = "not here yet: antiphon model pull" if model.kind == "llama" else ""
    if extra := _missing_extra(model.kind):
        missing, path = f"runtime missing: pip install 'antiphon[{extra}]'", None
    return ModelEntry(
        name,
        name == default,
        model.kind,
        missing if extra else model.base_url or (str(path) if path else missing),
        path.stat().st_size if path else None,
    )


def _missing_extra(kind: str) -> str | None:
    """The extra that has to be installed for a kind of model; None: it can be called."""
    extra, module = {"llama": ("llama", "xllamacpp"), "xai-grpc": ("grpc", "xai_sdk")}.get(
        kind, (None, "")
    )
    return extra if extra and find_spec(module) is None else None


def _model_row(entry: ModelEntry) -> tuple[str, str, str, str, str]:
    mark = "default" if entry.default else ""
    size = f"{entry.size / _MEGABYTE:.0f} MB" if entry.size is not None else ""
    return entry.name, mark, entry.kind, size, entry.where
