"""What a server's /metrics page says."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from support.http_server import Answer, ThreadServer

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse_samples(answer: Answer) -> Samples:
    """All numbers of the page, by name and labels."""
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def metric_value(server: ThreadServer, name: str, **labels: str) -> float:
    """One number; 0 where there is none."""
    # What an answer adds is added when it is out already.
    server.run(asyncio.sleep(0))
    found = parse_samples(server.get("/metrics"))
    return found.get((f"antiphon_{name}", frozenset(labels.items())), 0.0)
