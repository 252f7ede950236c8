"""How a model behind xAI's gRPC API is set, and what it takes to load it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.bootstrap import open_engine
from antiphon.core.secrets import Secret
from antiphon.errors import ConfigError
from antiphon.models.xai.model import XaiGrpcModel
from antiphon.settings import ModelSettings, Settings, load_settings
from support.grpc_client import grpc_serving
from support.turn_service import run_turn, texts

#: The modules of ours that need the extra.
OWN_MODULES = re.compile(r"antiphon\.(models|protos)\.xai")


def load(cwd: Path, toml: str, **env: str) -> ModelSettings:
    (cwd / "antiphon.toml").write_text(f"[models.grok]\nkind = 'xai-grpc'\n{toml}")
    return load_settings({"config": "antiphon.toml"}, env, cwd).models["grok"]


def grok(base_url: str) -> Settings:
    models = {"grok": ModelSettings(kind="xai-grpc", base_url=base_url, name="scripted")}
    return Settings(store="memory:", model="grok", models=models)


def test_a_host_is_reached_safely_and_has_its_usual_key(tmp_path: Path) -> None:
    given = load(tmp_path, "base_url = 'api.x.ai'\nname = 'grok-4'\ncontext = 9", XAI_API_KEY="k")
    assert given == ModelSettings(
        kind="xai-grpc",
        base_url="https://api.x.ai",
        api_key=Secret("k"),
        name="grok-4",
        context=9,
    )
    named = load(tmp_path, "base_url = 'grok.e.com:99'\napi_key_env = 'MINE'", MINE="m")
    assert (named.base_url, named.api_key) == ("https://grok.e.com:99", Secret("m"))


def test_plain_text_only_for_an_http_url(tmp_path: Path) -> None:
    given = load(tmp_path, "base_url = 'http://127.0.0.1:9'", XAI_API_KEY="k")
    assert (given.base_url, given.api_key) == ("http://127.0.0.1:9", None)


@pytest.mark.parametrize("toml", ["", "base_url = 'ftp://e.com'", "base_url = 'u:p@e.com'"])
def test_what_cannot_be_a_host(toml: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[models\.grok\]"):
        load(tmp_path, toml)


async def test_the_engine_opens_it() -> None:

    with grpc_serving() as server:
        port = server.port
        async with open_engine(grok(f"http://127.0.0.1:{port}")) as engine:
            _, model = engine.service.models.get("grok")
            assert isinstance(model, XaiGrpcModel)
            reply = await run_turn(engine.service, "Hi")
            assert texts(reply) == ["You said: Hi\n(I was shown 1 messages.)"]


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if OWN_MODULES.match(name)]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("xai_sdk", "xai_sdk.proto"):
        monkeypatch.setitem(sys.modules, name, None)

    async def main() -> None:
        async with open_engine(grok("https://api.x.ai")):
            raise AssertionError("it cannot be opened")

    with pytest.raises(ConfigError, match=r"'grok' needs gRPC: `pip install 'antiphon\[grpc\]'`"):
        asyncio.run(main())


def test_other_models_load_none_of_it() -> None:
    look = (
        "import sys, antiphon.bootstrap\n"
        "print([name for name in ('grpc', 'xai_sdk', 'google.protobuf') if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, check=True, text=True
    )
    assert output.stdout == "[]\n"
