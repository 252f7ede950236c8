import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.errors import ConfigError
from antiphon.models.llama.model_download import pull_file
from support.fake_huggingface_hub import GATED, REPO, Hub, hub

pytest.importorskip("huggingface_hub")

MODEL = b"GGUF" + os.urandom(300_000)
SPEC = f"hf:{REPO}/tiny.gguf"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with hub() as state:
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        state.files["tiny.gguf"] = MODEL
        yield state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_fetched_with_progress_and_access(fake: Hub, folder: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = pull_file(SPEC, folder, lambda done, total: seen.append((done, total)))
    assert path == folder / REPO / "tiny.gguf"
    assert path.read_bytes() == MODEL
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert sorted(seen) == seen
    assert fake.authorization == {"Bearer hf_secret"}


def test_nothing_is_fetched_twice_until_it_changes(fake: Hub, folder: Path) -> None:
    pull_file(SPEC, folder)
    seen: list[tuple[int, int | None]] = []
    pull_file(SPEC, folder, lambda done, total: seen.append((done, total)))
    assert len(fake.ranges) == 1
    assert seen == [(len(MODEL), len(MODEL))]
    fake.files["tiny.gguf"] = b"GGUF new"
    assert pull_file(SPEC, folder).read_bytes() == b"GGUF new"


def test_a_broken_connection_is_resumed(fake: Hub, folder: Path) -> None:
    # The library writes ten MiB at a time.
    big = fake.files["big.gguf"] = MODEL * 80
    fake.cuts = [12 << 20]
    assert pull_file(f"hf:{REPO}/big.gguf", folder).read_bytes() == big
    assert fake.ranges == [None, f"bytes={10 << 20}-"]


def test_a_pull_resumes_in_a_later_process(fake: Hub, folder: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_file(SPEC, folder, stop)
    (part,) = (folder / REPO).glob(".*.part")
    # A network chunk may hold the whole file; what matters is that what is there is kept.
    part.write_bytes(MODEL[:123_456])
    seen: list[int] = []
    assert pull_file(SPEC, folder, lambda done, total: seen.append(done)).read_bytes() == MODEL
    assert fake.ranges == [None, "bytes=123456-"]
    assert seen[0] > 123_456
    assert files(folder) == {f"{REPO}/tiny.gguf", f"{REPO}/.tiny.gguf.etag"}


def test_a_file_in_a_folder_of_its_repository(fake: Hub, folder: Path) -> None:
    fake.files["q4/tiny.gguf"] = MODEL
    assert pull_file(f"hf:{REPO}/q4/tiny.gguf", folder) == folder / REPO / "q4" / "tiny.gguf"


def test_a_damaged_file_is_deleted(fake: Hub, folder: Path) -> None:
    fake.wrong_etag = True
    with pytest.raises(ConfigError, match="came damaged"):
        pull_file(SPEC, folder)
    assert files(folder) == set()


def test_a_file_that_is_no_gguf_is_deleted(fake: Hub, folder: Path) -> None:
    fake.files["tiny.gguf"] = b"<html>"
    with pytest.raises(ConfigError, match="is not a GGUF file"):
        pull_file(SPEC, folder)
    assert files(folder) == set()


@pytest.mark.parametrize(
    "spec",
    [
        "tiny",
        "hf:owner/repo",
        "hf:owner/repo/file.bin",
        "hf:owner/../file.gguf",
        "hf:owner/repo/../file.gguf",
        "hf:owner/repo/.hidden.gguf",
        "hf:owner/repo//file.gguf",
        "hf:/etc/passwd/x.gguf",
        "hf:owner/repo/a b.gguf",
        "hf:owner/repo/file.gguf\n",
    ],
)
def test_unsafe_and_unclear_names_are_refused(fake: Hub, folder: Path, spec: str) -> None:
    with pytest.raises(ConfigError, match="not of the form"):
        pull_file(spec, folder)
    assert fake.heads == 0
    assert not folder.exists()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("hf:nobody/nothing/tiny.gguf", "no repository nobody/nothing"),
        (f"hf:{REPO}/other.gguf", "has no file other.gguf"),
        (f"hf:{GATED}/tiny.gguf", "is gated"),
    ],
)
def test_an_error_of_the_hub_is_reported(fake: Hub, folder: Path, spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        pull_file(spec, folder)
    assert "hf_secret" not in caught.value.message
    assert not folder.exists()


def test_a_missing_network_is_reported(
    fake: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ConfigError, match="could not be fetched"):
            pull_file(SPEC, folder)
