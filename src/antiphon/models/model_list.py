"""What an endpoint's ``/models`` says, and what is made of it where no model was named. Pure.

The shape is OpenAI's list, which Ollama, llama.cpp, LM Studio and vLLM give too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from antiphon.models.openai.upstream_errors import DECODE_ERRORS, Unreadable
from antiphon.models.retry import AttemptError

#: How many names a message shows, and how long one is at most, in characters.
_SHOWN: Final = 20
_LONGEST_NAME: Final = 200


class _Model(msgspec.Struct, frozen=True):
    id: str


class _List(msgspec.Struct, frozen=True):
    #: Ollama says null where it has none.
    data: list[_Model] | None


_decode = msgspec.json.Decoder(_List).decode


def decode_model_list(body: bytes) -> list[str]:
    """The models' names in their order, each once. Raises ``RpcFailure``.

    Names that no terminal should print, or that are too long to be one, are left out.
    """
    try:
        models = _decode(body).data or []
    except DECODE_ERRORS as error:
        raise Unreadable(str(error), body, error) from None
    names = [model.id for model in models]
    usable = [name for name in names if name.isprintable() and 0 < len(name) <= _LONGEST_NAME]
    return list(dict.fromkeys(usable))


def why_undecided(where: str, names: Sequence[str]) -> str:
    """What to tell whoever named no model, where the endpoint does not have exactly one."""
    if not names:
        return f"Name a model: {where} lists none."
    shown = ", ".join(names[:_SHOWN])
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"Name a model: {where} has {shown}{rest}."


def why_unknown(where: str, failure: AttemptError) -> str:
    """The same, where the endpoint could not be asked."""
    return f"Name a model: {where} does not say which it has. {failure.error.message}"
