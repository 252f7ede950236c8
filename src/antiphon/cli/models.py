"""``antiphon model list`` and ``pull``."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.cli.options import Config, Json, Model

app = typer.Typer(
    help="See what models there are, and fetch one.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list")
def list_(as_json: Json = False, model: Model = None, config: Config = None) -> None:
    """List the models that can be named: configured ones and those on this machine."""
    from antiphon.cli import model_commands  # loaded on first use

    model_commands.list_models({"model": model, "config": config}, as_json=as_json)


@app.command()
def pull(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="smollm2, or hf:OWNER/REPO/FILE.gguf from the Hugging Face hub."
        ),
    ] = "smollm2",
) -> None:
    """Fetch a model's model_commands, going on where an earlier attempt was cut off."""
    from antiphon.cli import model_commands  # loaded on first use

    model_commands.pull_model(what)
