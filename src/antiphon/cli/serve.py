"""``antiphon serve``: options of the HTTP and gRPC server command."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.cli.options import ApiKeyEnv, BaseUrl, Config, Model, Store


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Where to listen; loopback only (127.0.0.1, ::1, localhost) until there are"
            " keys.  [env: ANTIPHON_HOST]",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Default 8080; 0: any that is free.  [env: ANTIPHON_PORT]",
        ),
    ] = None,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="For the official xai-sdk; default: the port of HTTP and 1; 0: none."
            "  [env: ANTIPHON_GRPC_PORT]",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=999,
            metavar="N",
            help="How many processes serve the port; default 1.  [env: ANTIPHON_WORKERS]",
        ),
    ] = None,
    node_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where other nodes of the store reach this one; default: a socket on this"
            " machine.  [env: ANTIPHON_NODE_URL]",
        ),
    ] = None,
    drain_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How long running turns may go on after SIGTERM; default 10."
            "  [env: ANTIPHON_DRAIN_SECONDS]",
        ),
    ] = None,
    tls_cert: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A certificate in PEM, for both: with --tls-key they speak TLS."
            "  [env: ANTIPHON_TLS_CERT]",
        ),
    ] = None,
    tls_key: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The certificate's key in PEM.  [env: ANTIPHON_TLS_KEY]"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="debug, info (a line for each request), warning or error; default warning."
            "  [env: ANTIPHON_LOG_LEVEL]",
        ),
    ] = None,
    open_page: Annotated[
        bool,
        typer.Option("--open", help="Open the chat page in the browser."),
    ] = False,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Serve the chat page, and the APIs of OpenAI and xAI.

    These are the Responses and chat completions APIs, and gRPC for the xai-sdk. Without --base-url
    and without XAI_API_KEY the embedded model answers. Once there are keys (`antiphon key create`)
    every request needs one; until then only this machine is served. Ctrl-C or SIGTERM stops the
    server when the answers under way are out, at most --drain-seconds later; so does the end of its
    terminal, unless under nohup.
    """
    from antiphon.cli import server  # loaded on first use

    server.run_server(
        {
            "host": host,
            "port": port,
            "grpc_port": grpc_port,
            "workers": workers,
            "node_url": node_url,
            "drain_seconds": drain_seconds,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
            "log_level": log_level,
            "model": model,
            "base_url": base_url,
            "api_key_env": api_key_env,
            "store": store,
            "config": config,
        },
        open_page=open_page,
    )
