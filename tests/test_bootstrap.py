"""Everything built from settings, and taken down again with the loop it ran on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from antiphon import AsyncConversation
from antiphon.bootstrap import open_engine, shared_engine
from antiphon.errors import ConfigError, ModelNotFoundError
from antiphon.models.fallback import FallbackModel
from antiphon.models.llama.model import LlamaModel
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.responses import ResponsesModel
from antiphon.settings import EMBEDDED, ModelSettings, Settings
from support.embedded_model import needs_model, weights

ECHO = {"echo": ModelSettings(kind="scripted")}


def settings(path: Path) -> Settings:
    return Settings(store=f"sqlite:{path / 'turns.db'}", model="echo", models=ECHO)


def test_a_loop_that_ends_closes_its_engine_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        # What goes wrong while a loop closes its generators depends on their order.
        for number in range(8):
            folder = tmp_path / str(number)
            await AsyncConversation(settings=settings(folder)).send("Hi")
            assert (folder / "turns.db-wal").stat().st_size > 0

    asyncio.run(main())
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.glob("*/turns.db-wal")), "closed: the log is in the database"


async def test_conversations_with_the_same_settings_share_an_engine(tmp_path: Path) -> None:
    first, second = await asyncio.gather(
        shared_engine(settings(tmp_path)), shared_engine(settings(tmp_path))
    )
    other = await shared_engine(Settings(store="memory:", model="echo", models=ECHO))
    assert first is second
    assert other is not first


async def test_an_upstream_is_spoken_to_in_its_own_dialect() -> None:
    models = {
        kind: ModelSettings(kind=kind, base_url="https://e.com/v1")
        for kind in ("chat_completions", "responses")
    }
    given = Settings(store="memory:", model="responses", models=models)
    async with open_engine(given) as engine:
        kinds = [type(engine.service.models.get(name)[1]) for name in models]
        assert kinds == [ChatCompletionsModel, ResponsesModel]


@needs_model
async def test_a_model_with_a_fallback_is_loaded_ahead() -> None:
    models = {"mine": ModelSettings(kind="llama", path=weights(), fallback=("echo",)), **ECHO}
    given = Settings(store="memory:", model="mine", models=models)
    async with open_engine(given) as engine:
        await engine.warm()
        model = engine.service.models.get("mine")[1]
        assert isinstance(model, FallbackModel)
        assert isinstance(model.first, LlamaModel)
        assert model.first.state == "ready"


async def test_models_are_found_by_their_names() -> None:
    models = {**ECHO, EMBEDDED: ModelSettings(kind="llama")}
    given = Settings(store="memory:", model="echo", models=models)
    async with open_engine(given) as engine:
        names = [name for name, _ in engine.service.models.items()]
        assert names[0] == "echo"
        assert EMBEDDED in names
        _, small = engine.service.models.get(EMBEDDED)
        assert small.info.few_shot
        assert not small.info.images
        with pytest.raises(ModelNotFoundError):
            engine.service.models.get("nobody")


async def test_a_title_model_that_is_not_there_is_refused_at_the_start() -> None:
    given = Settings(store="memory:", model="echo", models=ECHO, title_model="nobody")
    with pytest.raises(ConfigError, match="title_model"):
        async with open_engine(given):
            pass
    async with open_engine(msgspec.structs.replace(given, title_model="echo")) as engine:
        assert engine.settings.title_model == "echo"
