"""One file per part of the benchmark, each with ``measure(lab) -> Part``."""
