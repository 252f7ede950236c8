"""``antiphon serve``: the HTTP server."""

from __future__ import annotations

from typing import Annotated

import typer

from antiphon.cli.options import ApiKeyEnv, BaseUrl, Config, Model, Store


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST", help="Loopback only: 127.0.0.1, ::1, localhost.  [env: ANTIPHON_HOST]"
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
            help="Reserved: gRPC is not served yet.  [env: ANTIPHON_GRPC_PORT]",
        ),
    ] = None,
    model: Model = None,
    base_url: BaseUrl = None,
    api_key_env: ApiKeyEnv = None,
    store: Store = None,
    config: Config = None,
) -> None:
    """Serve the OpenAI Responses and chat completions APIs.

    Without --base-url and without XAI_API_KEY the embedded model answers. Ctrl-C or
    SIGTERM stops the server when the answers under way are out, at most 10 seconds later.
    """
    from antiphon.cli import server  # loaded on first use

    server.serve(
        {
            "host": host,
            "port": port,
            "grpc_port": grpc_port,
            "model": model,
            "base_url": base_url,
            "api_key_env": api_key_env,
            "store": store,
            "config": config,
        }
    )
