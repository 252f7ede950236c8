"""The message classes of xAI's API, as its SDK has them. Only there with the extra ``grpc``.

The package has no types of its own for its messages' users, so here they are ``Any``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from xai_sdk.proto import (  # type: ignore[import-untyped]
    chat_pb2,
    chat_pb2_grpc,
    image_pb2,
    sample_pb2,
    usage_pb2,
)

#: A protobuf message; which one, its name says.
Proto: TypeAlias = Any

__all__ = ["Proto", "chat_pb2", "chat_pb2_grpc", "image_pb2", "sample_pb2", "usage_pb2"]
