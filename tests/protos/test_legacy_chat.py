"""The first Chat SDK's messages: its bytes, and the classes of the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

import antiphon.protos
from antiphon.protos.legacy_chat import (
    ADD_RESPONSE,
    HUMAN,
    StatelessConversation,
    StatelessResponse,
    file_descriptor,
)


def test_encoded_messages_equal_those_of_the_old_sdk() -> None:
    conversation = StatelessConversation(
        responses=[StatelessResponse(sender=HUMAN, message="Hi")],
        system_prompt_name="fun",
        stateless_conversation_id="id",
        model_name="m",
    )
    assert conversation.SerializeToString() == (
        b"\x0a\x06\x08\x01\x12\x02Hi" + b"\x12\x03fun" + b"\x2a\x02id" + b"\x4a\x01m"
    )


def test_generated_classes_match_the_proto_file(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    folder = Path(antiphon.protos.__file__).parent
    made = tmp_path / "made"
    assert protoc.main([sys.executable, f"-I{folder}", f"-o{made}", "legacy_chat.proto"]) == 0
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    assert file == file_descriptor()
    (service,) = file.service
    assert f"/{file.package}.{service.name}/{service.method[0].name}" == ADD_RESPONSE
