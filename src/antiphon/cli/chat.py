"""``antiphon chat``: at a terminal a conversation, else one question and its answer."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.cli.options import ApiKeyEnv, BaseUrl, Config, Model, Store


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
        typer.Option("--from", metavar="ID", help="Go on from any response: this may branch."),
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
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Talk to a model; the conversation is kept.

    At a terminal: Ctrl-C stops an answer, Alt-Enter starts a new line, and exit, quit or
    Ctrl-D leave. Text piped in is the question, or with -p is added to it; then nothing
    but the answer goes to standard output.
    """
    if newest and response_id is not None:
        raise typer.BadParameter("--continue and --from exclude each other")
    from antiphon.cli import session  # loaded on first use

    wish = session.ChatCommandOptions(
        prompt=prompt,
        system=system,
        newest=newest,
        response_id=response_id,
        temperature=temperature,
        max_tokens=max_tokens,
        has_model_flag=model is not None,
    )
    flags = {
        "model": model,
        "base_url": base_url,
        "api_key_env": api_key_env,
        "store": store,
        "config": config,
    }
    raise typer.Exit(session.run_chat(flags, wish))
