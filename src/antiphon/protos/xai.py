"""The message classes of xAI's API: its SDK's own, of the generation that protobuf wants.

Only there with the extra ``grpc``, and only loaded by what speaks that API. The package has
no types of its own for its messages' users, so here they are ``Any``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from xai_sdk.proto import (  # type: ignore[import-untyped]
    auth_pb2,
    chat_pb2,
    chat_pb2_grpc,
    deferred_pb2,
    image_pb2,
    models_pb2,
    sample_pb2,
    tokenize_pb2,
    usage_pb2,
)

#: A protobuf message; which one, its name says.
Proto: TypeAlias = Any

__all__ = [
    "Proto",
    "auth_pb2",
    "chat_pb2",
    "chat_pb2_grpc",
    "deferred_pb2",
    "image_pb2",
    "models_pb2",
    "sample_pb2",
    "tokenize_pb2",
    "usage_pb2",
]
