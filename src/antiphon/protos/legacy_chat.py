"""Protobuf messages of the first Chat SDK: ``stateless.proto`` without its compiler.

A test compares both. Importing this needs protobuf, which comes with the extra ``grpc``.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "prompt_ide"
_TEXT = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_RESPONSE = f".{_PACKAGE}.StatelessResponse"


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """The descriptor that the compiler would generate."""
    file = descriptor_pb2.FileDescriptorProto(
        name="stateless.proto", package=_PACKAGE, syntax="proto3"
    )
    conversation = file.message_type.add(name="StatelessConversation")
    responses = conversation.field.add(name="responses", number=1, json_name="responses")
    responses.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    responses.type_name = _RESPONSE
    responses.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    _add_text(conversation, "system_prompt_name", 2, "systemPromptName")
    _add_text(conversation, "stateless_conversation_id", 5, "statelessConversationId")
    _add_text(conversation, "model_name", 9, "modelName")
    response = file.message_type.add(name="StatelessResponse")
    sender = response.field.add(name="sender", number=1, json_name="sender")
    sender.type = descriptor_pb2.FieldDescriptorProto.TYPE_ENUM
    sender.type_name = f"{_RESPONSE}.Sender"
    sender.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    _add_text(response, "message", 2, "message")
    _add_text(response, "query", 3, "query")
    senders = response.enum_type.add(name="Sender")
    for number, name in enumerate(("UNKNOWN", "HUMAN", "ASSISTANT")):
        senders.value.add(name=name, number=number)
    service = file.service.add(name="StatelessChat")
    service.method.add(
        name="AddResponse",
        input_type=f".{_PACKAGE}.StatelessConversation",
        output_type=_RESPONSE,
        server_streaming=True,
    )
    return file


def _add_text(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, json_name: str
) -> None:
    field = message.field.add(name=name, number=number, type=_TEXT, json_name=json_name)
    field.label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL


#: A pool of its own: the old SDK registers the same names in the default one.
_classes = message_factory.GetMessages([file_descriptor()], descriptor_pool.DescriptorPool())
StatelessConversation: Any = _classes[f"{_PACKAGE}.StatelessConversation"]
StatelessResponse: Any = _classes[f"{_PACKAGE}.StatelessResponse"]
HUMAN, ASSISTANT = 1, 2
#: The service's one method.
ADD_RESPONSE: Final = f"/{_PACKAGE}.StatelessChat/AddResponse"
