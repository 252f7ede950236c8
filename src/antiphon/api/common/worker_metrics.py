"""Worker metrics: those of all workers of one server, whichever of them is asked.

They share a port, so a scrape reaches any of them. Each series has the number of its worker as a
label and not the sum of all: the counters of one that was started again begin anew, which
Prometheus sees in a series of its own, and would take for a fall of a sum.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Any, Final

from antiphon.api.common.metrics import Metrics
from antiphon.api.common.node_client import NodeClient, Operation

_OPERATION: Final = "metrics"
_HELP: Final = b"# HELP "


class WorkerMetrics:
    """The metrics of a server. ``worker`` as for ``create_app``."""

    def __init__(
        self, metrics: Metrics, nodes: NodeClient | None, worker: tuple[int, str] | None
    ) -> None:
        self._metrics = metrics
        self._nodes = nodes
        self._number = None if worker is None else worker[0]
        self._server = "" if worker is None else worker[1]

    def operations(self) -> dict[str, Operation]:
        """What other nodes ask this one, by name."""
        return {_OPERATION: self._render_for_other}

    async def render(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        own = await self._metrics.render(self._number)
        if self._nodes is None or self._number is None:
            return own
        answers = await self._nodes.call_all(_OPERATION, server=self._server)
        return join_metrics([own, *(one["text"].encode() for one in answers)])

    async def _render_for_other(self, fields: dict[str, Any]) -> dict[str, Any]:
        """This process's, for another worker of the same server; nothing for other servers."""
        is_same = self._number is not None and hmac.compare_digest(fields["server"], self._server)
        return {"text": (await self._metrics.render(self._number)).decode() if is_same else ""}


def join_metrics(texts: Iterable[bytes]) -> bytes:
    """Texts of the same format as one, in which each metric has all its series together. Pure."""
    heads: dict[bytes, bytes] = {}
    series: dict[bytes, list[bytes]] = {}
    for text in texts:
        for block in text.split(_HELP)[1:]:
            described, kind, *samples = block.splitlines(keepends=True)
            name = described.split(b" ", 1)[0]
            heads.setdefault(name, _HELP + described + kind)
            series.setdefault(name, []).extend(samples)
    return b"".join(head + b"".join(series[name]) for name, head in heads.items())
