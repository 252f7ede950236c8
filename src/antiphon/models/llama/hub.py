"""Fetches GGUF files from the Hugging Face hub, with ``huggingface_hub``.

That library throws an unfinished file away, so the file is kept here: a pull that was
broken off, however long ago, goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec

from antiphon.errors import ConfigError
from antiphon.models.llama.gguf import MAGIC

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
    # Else its first request asks the hub how to tell it which program is calling.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub  # loaded on first use
    except ImportError as error:
        raise ConfigError(
            "The package huggingface-hub is not installed; 'pip install antiphon[llama]' brings it."
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
        # Which HTTP library lies below, and so what it raises, depends on the hub's version.
        raise ConfigError(
            f"{spec} could not be fetched ({type(error).__name__}); "
            "pulling again goes on where it stopped."
        ) from error


def _ignore_progress(done: int, total: int | None) -> None:
    """Nobody watches."""


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

    # Its "trying to resume" would stand in the middle of somebody's progress bar.
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
    """The unfinished file; tells how much of it is there."""

    def __init__(self, path: Path, total: int | None, progress: ProgressCallback) -> None:
        super().__init__(path, "ab")
        self._total = total
        self._progress = progress

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._progress(self.tell(), self._total)
        return written


def _verify(remote: _RemoteFile, part: Path, name: str) -> None:
    """Large files' ETags are their SHA-256, so a file joined from two pulls can be proven."""
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
