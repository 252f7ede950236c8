"""The whole site: the endpoints, and what stands before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from antiphon.api.common.authentication import Keyring
from antiphon.api.common.metrics import Metrics
from antiphon.api.common.rate_limits import Allowance, Limiter
from antiphon.api.http.app import HttpApp
from antiphon.api.http.cors import Cors
from antiphon.api.http.docs_page import Reference
from antiphon.api.http.health import Operations
from antiphon.api.http.middleware import Front
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import KeyStore, StoreHealth


def open_site(
    service: TurnService,
    keys: KeyStore,
    *,
    allowance_of: Callable[[str], Allowance] | None = None,
    origins: Sequence[str] = (),
    health: StoreHealth | None = None,
) -> Front:
    """The ASGI application of the HTTP API.

    ``allowance_of`` says how much each key of a tenant may ask for, None: there are no
    limits. ``origins`` are those of web pages that may read answers ("*": all). ``health`` is
    that of the store, None: nothing is known of it.
    """
    keyring = Keyring(keys)
    metrics = Metrics(lambda: {name for name, _ in service.models.names()}, health)
    service.watch(metrics)
    limiter = None
    if allowance_of is not None:
        limiter = Limiter(allowance_of)
        service.watch(limiter)
    return Front(
        HttpApp(service, {**Operations(keyring, metrics, health).table(), **Reference().table()}),
        keyring,
        metrics,
        limiter,
        Cors(origins) if origins else None,
    )
