"""Packages from npm for tests: installed once, by a lock file, into the user's cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

#: Seconds that an installation may take, on a slow day.
_TIMEOUT = 300


def installed_packages(lock_folder: Path) -> Path:
    """A folder with ``node_modules``, as the lock file says. Skips the test without npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node is not here")
    lock = (lock_folder / "package-lock.json").read_bytes()
    name = f"npm-{hashlib.sha256(lock).hexdigest()[:16]}"
    folder = platformdirs.user_cache_path("antiphon-tests", ensure_exists=True) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _install(npm, lock_folder, folder)
    return folder


def _install(npm: str, lock_folder: Path, folder: Path) -> None:
    half = folder.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock_folder / name, half)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, cwd=half, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm could not install: it takes too long")
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        pytest.skip(f"npm could not install: {' '.join(errors[:3])}")
    half.rename(folder)
