"""Models, tokens and keys, as the SDK lists them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import grpc

from antiphon.models.scripted import ScriptedModel
from antiphon.turn.protocols import ModelInfo, Token
from support.grpc_client import grpc_serving, rpc_failure


class Spelling(ScriptedModel):
    """A model whose tokens are bytes."""

    async def tokenize(self, model: str, text: str) -> Sequence[Token]:
        return [Token(byte, bytes([byte])) for byte in text.encode()]


def test_models() -> None:
    blind = ModelInfo("blind", context_window=4096, images=False)
    models = {"scripted": ScriptedModel(), "blind": ScriptedModel(info=blind)}
    with grpc_serving(models) as server, server.client() as client:
        listed = client.models.list_language_models()
        assert [one.name for one in listed] == ["scripted", "blind"]
        assert [list(one.input_modalities) for one in listed] == [[1, 2], [1]]
        assert [one.max_prompt_length for one in listed] == [0, 4096]
        assert client.models.get_language_model("blind") == listed[1]
        lost = rpc_failure(lambda: client.models.get_language_model("nobody"))
        assert (lost.code, lost.error) == (grpc.StatusCode.NOT_FOUND, "model_not_found")
        assert list(client.models.list_embedding_models()) == []
        assert list(client.models.list_image_generation_models()) == []
        for get in (client.models.get_embedding_model, client.models.get_image_generation_model):
            assert rpc_failure(partial(get, "x")).code is grpc.StatusCode.NOT_FOUND


def test_tokens_are_exact_or_none() -> None:
    with (
        grpc_serving({"spelling": Spelling(), "silent": ScriptedModel()}) as server,
        server.client() as client,
    ):
        tokens = client.tokenize.tokenize_text("h\u00e9", "spelling")
        assert [(one.token_id, one.token_bytes) for one in tokens] == [
            (0x68, b"h"),
            (0xC3, b"\xc3"),
            (0xA9, b"\xa9"),
        ]
        assert tokens[0].string_token == "h"
        silent = rpc_failure(lambda: client.tokenize.tokenize_text("hi", "silent"))
        assert silent.code is grpc.StatusCode.UNIMPLEMENTED
        assert "'silent'" in silent.details
        unknown = rpc_failure(lambda: client.tokenize.tokenize_text("hi", "nobody"))
        assert unknown.code is grpc.StatusCode.NOT_FOUND


def test_a_key_where_none_is_needed() -> None:
    """Nothing of what the client happens to send looks like a key of this server."""
    with grpc_serving() as server, server.client("xai-private") as client:
        info = client.auth.get_api_key_info()
        assert info.redacted_api_key == info.redacted_api_key.strip() != ""
        assert (info.redacted_api_key, info.api_key_id) == ("none (no keys configured)", "none")
        assert (info.user_id, info.team_id, info.name) == ("", "", "no keys configured")
        assert list(info.acls) == ["api-key:endpoint:*", "api-key:model:*"]
        assert (info.disabled, info.api_key_blocked, info.team_blocked) == (False, False, False)
