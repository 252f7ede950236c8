"""Processors that a process may use: its affinity, and its container's quota."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from antiphon.models.llama.cpu_count import count_cpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def system(folder: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("0 100000\n", 1),
        ("100000 0\n", 8),
        ("-1 100000\n", 8),
        ("two processors\n", 8),
        ("", 8),
    ],
)
def test_a_container_with_a_quota(tmp_path: Path, limit: str, count: int) -> None:
    assert count_cpus(system(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": limit})) == count


def test_the_smallest_quota_of_the_groups_around_it_counts(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu.max": "500000 100000\n",
        "sys/fs/cgroup/system.slice/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/system.slice/antiphon.service/cpu.max": "max 100000\n",
    }
    assert count_cpus(system(tmp_path, "0::/system.slice/antiphon.service\n", files)) == 3


@pytest.mark.parametrize("name", ["/", "/docker/0123", "/../other"])
@pytest.mark.parametrize(("quota", "count"), [("400000\n", 4), ("-1\n", 8)])
def test_the_first_version_of_control_groups(
    tmp_path: Path, name: str, quota: str, count: int
) -> None:
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }
    groups = f"3:cpu,cpuacct:{name}\n1:memory:{name}\n"
    assert count_cpus(system(tmp_path, groups, files)) == count


def test_no_control_groups(tmp_path: Path) -> None:
    assert count_cpus(tmp_path) == 8


def test_affinity_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    limit = {"sys/fs/cgroup/cpu.max": "400000 100000\n"}
    assert count_cpus(system(tmp_path, "0::/\n", limit)) == 1


def test_this_machine() -> None:
    assert count_cpus() >= 1
