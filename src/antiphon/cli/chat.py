"""``antiphon chat``: an interactive conversation at a terminal, else one question and answer.

It imports nothing that takes long: the first prompt is there before what answers it is loaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from antiphon.cli.interactive.first_prompt import hold_typed_keys, show_first_prompt, show_greeting
from antiphon.cli.options import ApiKeyEnv, BaseUrl, Config, Model, Store
from antiphon.settings import load_settings

if TYPE_CHECKING:
    from antiphon.cli.engine_runner import Flags


class ChatCommandOptions(msgspec.Struct, frozen=True):
    """The options of ``antiphon chat`` that are no settings."""

    prompt: str | None
    system: str | None
    newest: bool
    response_id: str | None
    temperature: float | None
    max_tokens: int | None
    has_model_flag: bool
    tools: tuple[Path, ...] = ()
    schema: Path | None = None
    is_plain: bool = False
    picks: bool = False

    @property
    def wants_plain(self) -> bool:
        """Whether no cursor may be moved, by an option or the environment."""
        return (
            self.is_plain
            or os.environ.get("TERM") in {None, "", "dumb"}
            or os.environ.get("ACCESSIBLE", "").lower() not in {"", "0", "false", "no"}
        )

    @property
    def continues(self) -> bool:
        """Whether it goes on with a stored chat."""
        return self.picks or self.newest or self.response_id is not None


def chat(
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="Ask this once, print the answer and leave."
        ),
    ] = None,
    newest: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the newest conversation.")
    ] = False,
    response_id: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="ID", help="Go on from any response (this may branch), or chat."
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Instructions for the model; a continued conversation keeps its own.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=2, metavar="T", help="0: the likeliest words; more: freer ones."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Longest answer, in tokens.")
    ] = None,
    picks: Annotated[
        bool, typer.Option("--resume", "-r", help="Choose the chat to go on with from a list.")
    ] = False,
    tools: Annotated[
        list[Path] | None,
        typer.Option(
            "--tools",
            metavar="FILE",
            help="Python file whose @tool functions the model may call; may be repeated.",
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON schema that the answers have to follow."),
    ] = None,
    is_plain: Annotated[
        bool,
        typer.Option(
            "--plain",
            help="No cursor movement, for screen readers. As ACCESSIBLE=1 or TERM=dumb.",
        ),
    ] = False,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Talk to a model; the conversation is stored.

    At a terminal: /help lists the commands, Esc or Ctrl-C stops an answer, one types on while it
    comes, and exit, quit or Ctrl-D leave. Text piped in is the question, or with -p is added to
    it; then nothing but the answer goes to standard output.
    """
    if sum((newest, picks, response_id is not None)) > 1:
        raise typer.BadParameter("--continue, --resume and --from exclude each other")
    options = ChatCommandOptions(
        prompt=prompt,
        system=system,
        newest=newest,
        response_id=response_id,
        temperature=temperature,
        max_tokens=max_tokens,
        has_model_flag=model is not None,
        tools=tuple(tools or ()),
        schema=schema,
        is_plain=is_plain,
        picks=picks,
    )
    flags = {
        "model": model,
        "base_url": base_url,
        "api_key_env": api_key_env,
        "store": store,
        "config": config,
    }
    raise typer.Exit(run_chat(flags, options))


def run_chat(flags: Flags, options: ChatCommandOptions) -> int:
    """Run the chat to its end; returns the exit code."""
    settings = load_settings(flags)
    if options.prompt is not None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        from antiphon.cli.one_shot_chat import run_one_shot  # loaded on first use

        if options.picks:
            raise typer.BadParameter(
                "--resume chooses at a terminal; --continue or --from go on without one"
            )
        return run_one_shot(settings, options)
    if options.wants_plain:
        from antiphon.cli.interactive.opening import run_plain  # loaded on first use

        return run_plain(settings, options, flags.get("store"))
    with hold_typed_keys():
        if options.picks:
            show_greeting(None)
        else:
            show_first_prompt(None if options.continues else settings.model)
        from antiphon.cli.interactive.opening import run_line  # loaded on first use

        return run_line(settings, options, flags.get("store"))
