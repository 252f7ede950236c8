"""Settings of models at upstreams: headers, fields, silence, quirks and fallbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from antiphon.bootstrap import open_engine
from antiphon.core.secrets import Secret
from antiphon.errors import ConfigError
from antiphon.settings import ModelSettings, Settings, load_settings

KEY = "azure-key-0123456789"
MODEL = """
[models.a]
base_url = "https://api.example/v1"
"""


def load(folder: Path, text: str, **environ: str) -> Settings:
    path = folder / "config.toml"
    path.write_text(text)
    return load_settings({"config": str(path), "store": "memory:"}, environ, folder)


def model(folder: Path, text: str, **environ: str) -> ModelSettings:
    return load(folder, MODEL + text, **environ).models["a"]


def test_all_upstream_model_settings(tmp_path: Path) -> None:
    settings = model(
        tmp_path,
        """
        headers = { "X-Title" = "my app" }
        headers_env = { api-key = "AZURE_KEY" }
        extra = { top_k = 20, chat_template_kwargs = { enable_thinking = false } }
        timeout = 30
        quirks = ["single-system-message", "without-field:user"]
        fallback = ["smollm2"]
        """,
        AZURE_KEY=KEY,
    )
    assert settings == ModelSettings(
        kind="chat_completions",
        base_url="https://api.example/v1",
        headers={"X-Title": Secret("my app"), "api-key": Secret(KEY)},
        extra={"top_k": 20, "chat_template_kwargs": {"enable_thinking": False}},
        timeout=30,
        quirks=("single-system-message", "without-field:user"),
        fallback=("smollm2",),
    )
    assert KEY not in repr(settings)


def test_default_upstream_model_settings(tmp_path: Path) -> None:
    plain = ModelSettings(kind="chat_completions", base_url="https://api.example/v1")
    assert model(tmp_path, "") == plain


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('headers = { Authorization = "Bearer x" }', "keys do not belong in this file"),
        ('headers = { X-API-Key = "x" }', "keys do not belong in this file"),
        ('headers = { "a b" = "x" }', "not the name of a header"),
        ('headers = { "" = "x" }', "not the name of a header"),
        ('headers = { X-Title = "a\\nb" }', "characters that none has"),
        ('headers = { X-Title = "é" }', "characters that none has"),
        ('headers = { Content-Type = "text/plain" }', "cannot be set"),
        ('headers = { x-a = "1", X-A = "2" }', "set twice"),
        ("headers = { x-a = 1 }", "Expected `str`"),
        ('headers_env = { api-key = "NO_SUCH_VARIABLE" }', "NO_SUCH_VARIABLE is not set"),
        ("extra = { model = 'x' }", "extra cannot set model"),
        ("extra = { store = true }", "extra cannot set store"),
        ("extra = 1", "Expected `object"),
        ("timeout = 0", "Expected `float` > 0"),
        ("timeout = 'x'", "Expected `float"),
        ("fallback = ['a']", "fallback names other models"),
        ("fallback = ['smollm2', 'smollm2']", "fallback names other models"),
        ("fallback = 'smollm2'", "Expected `array"),
        ("quirks = 'single-system-message'", "Expected `array"),
    ],
)
def test_invalid_model_settings_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model(tmp_path, text)
    assert reason in caught.value.message
    assert str(tmp_path / "config.toml") in caught.value.message


@pytest.mark.parametrize("field", ["headers = {}", "extra = {}", "quirks = []", "fallback = []"])
@pytest.mark.parametrize("kind", ["llama", "scripted"])
def test_local_models_refuse_upstream_settings(tmp_path: Path, kind: str, field: str) -> None:
    if (kind, field) == ("llama", "extra = {}"):
        # Its sampling settings.
        field = "extra = { top_k = 20 }"
        settings = load(tmp_path, f"[models.a]\nkind = '{kind}'\n{field}")
        assert settings.models["a"].extra == {"top_k": 20}
        return
    with pytest.raises(ConfigError, match="takes no"):
        load(tmp_path, f"[models.a]\nkind = '{kind}'\n{field}")


def test_grpc_models_take_headers_and_fields_but_no_quirks(tmp_path: Path) -> None:
    head = "[models.a]\nkind = 'xai-grpc'\nbase_url = 'api.x.ai'\n"
    fields = "headers = { X-Team = 'a' }\nextra = { max_turns = 3 }"
    given = load(tmp_path, head + fields).models["a"]
    assert (given.headers["X-Team"].reveal(), given.extra) == ("a", {"max_turns": 3})
    with pytest.raises(ConfigError, match="takes no"):
        load(tmp_path, f"{head}quirks = []")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('quirks = ["single-system"]', "'single-system', which is none of"),
        ('quirks = ["without-field:"]', "'without-field:', which is none of"),
        ('fallback = ["nobody"]', "falls back to 'nobody', which is not there"),
    ],
)
async def test_unknown_names_are_config_errors(tmp_path: Path, text: str, reason: str) -> None:
    settings = load(tmp_path, MODEL + text)
    with pytest.raises(ConfigError, match=reason):
        async with open_engine(settings):
            pass


async def test_two_models_may_fall_back_to_each_other(tmp_path: Path) -> None:
    text: Any = MODEL + "fallback = ['b']\n" + MODEL.replace("models.a", "models.b")
    async with open_engine(load(tmp_path, text + "fallback = ['a']")):
        pass
