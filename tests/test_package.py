"""The package that is installed: what a wheel has, what it says of itself, and that it starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import antiphon
from support.structure_rules import PACKAGE, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def names_in(wheel: ZipFile, ending: str) -> list[str]:
    return [name for name in wheel.namelist() if name.endswith(ending)]


def metadata_of(wheel: ZipFile) -> Message:
    return Parser().parsestr(wheel.read(names_in(wheel, "/METADATA")[0]).decode())


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: ZipFile) -> None:
    there = {
        f"antiphon/{path.relative_to(PACKAGE).as_posix()}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == there
    assert "antiphon/py.typed" in packed


def test_the_wheel_brings_the_licences_of_what_is_in_it(wheel: ZipFile) -> None:
    vendored = {path.name for path in (PACKAGE / "web" / "vendor").glob("*.LICENSE")}
    licences = {Path(name).name for name in wheel.namelist() if "/licenses/" in name}
    assert licences == vendored | {"LICENSE"}
    assert metadata_of(wheel)["License-Expression"] == "Apache-2.0 AND BSD-3-Clause AND MIT"


def test_the_metadata_name_the_version_and_the_extras(wheel: ZipFile) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Version"] == antiphon.__version__
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "all",
        "grpc",
        "llama",
        "mcp",
        "postgres",
    }


def test_all_has_what_each_other_extra_has(wheel: ZipFile) -> None:
    required: dict[str, set[str]] = {}
    for line in metadata_of(wheel).get_all("Requires-Dist", []):
        requirement, _, condition = line.partition("; extra == ")
        if condition:
            required.setdefault(condition.strip("'\""), set()).add(requirement)
    everything = required.pop("all")
    assert everything == set.union(*required.values())


def test_the_package_starts_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "antiphon", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"antiphon {antiphon.__version__}\n"
