"""The messages of xAI's SDK load without its clients, and the SDK itself works beside them."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CHECKS = (
    # The messages alone.
    "print('pydantic' in sys.modules)",
    # What the SDK is imported for loads it, by whichever name.
    "from xai_sdk import Client; print(Client.__module__)",
    "import xai_sdk; print(xai_sdk.AsyncClient.__module__, xai_sdk.proto.chat_pb2 is chat_pb2)",
    "from xai_sdk.chat import user; print(type(user('hi')) is chat_pb2.Message)",
    "import xai_sdk; print(hasattr(xai_sdk, 'nothing'), hasattr(xai_sdk, '__nothing__'))",
)


@pytest.mark.parametrize(
    ("checks", "printed"),
    [
        (_CHECKS[:1], "False"),
        (_CHECKS[1:2], "xai_sdk.sync.client"),
        (_CHECKS[2:], "xai_sdk.aio.client True\nTrue\nFalse False"),
    ],
)
def test_the_messages_load_without_the_clients(checks: tuple[str, ...], printed: str) -> None:
    program = "\n".join(("import sys", "from antiphon.protos.xai import chat_pb2", *checks))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == printed
