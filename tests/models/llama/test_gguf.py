import math
import struct
from pathlib import Path

import pytest

from antiphon.errors import ConfigError
from antiphon.models.llama.gguf import read_metadata
from support.embedded_model import needs_model, weights


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(*entries: bytes, version: int = 3, count: int | None = None) -> bytes:
    head = struct.pack("<IQQ", version, 0, len(entries) if count is None else count)
    return b"GGUF" + head + b"".join(entries)


def strings(key: str, values: list[str]) -> bytes:
    head = text(key) + struct.pack("<IIQ", 9, 8, len(values))
    return head + b"".join(text(value) for value in values)


def integers(key: str, values: list[int]) -> bytes:
    return text(key) + struct.pack(f"<IIQ{len(values)}i", 9, 5, len(values), *values)


VOCABULARY = strings("tokenizer.ggml.tokens", ["a", "<unk>", "<|end|>", "<tool>", "<div>"])
KINDS = integers("tokenizer.ggml.token_type", [1, 2, 4, 3, 4])
CONTEXT = text("llama.context_length") + struct.pack("<II", 4, 2048)


def test_context_and_control_tokens_are_found_among_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    other = [
        text("general.name") + struct.pack("<I", 8) + text("n"),
        text("general.flag") + struct.pack("<I?", 7, True),
        strings("general.tags", ["x", "y"]),
        text("rope.scale") + struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3),
    ]
    path.write_bytes(gguf(*other, VOCABULARY, CONTEXT, KINDS, strings("merges", ["a b"])))
    facts = read_metadata(path)
    assert facts.context_length == 2048
    # <|end|> is user-defined in the file, but llama.cpp reads it as the end of a turn.
    assert facts.control_tokens == ("<unk>", "<|end|>", "<tool>")


def test_a_file_without_these_keys_has_no_facts(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf())
    facts = read_metadata(path)
    assert (facts.context_length, facts.control_tokens) == (None, ())


@pytest.mark.parametrize(("template", "found"), [("{{ x }}", "{{ x }}"), (" \n", None), ("", None)])
def test_a_chat_template_is_found_behind_the_merges(
    tmp_path: Path, template: str, found: str | None
) -> None:
    def entry(key: str, value: str) -> bytes:
        return text(key) + struct.pack("<I", 8) + text(value)

    path = tmp_path / "a.gguf"
    entries = [
        entry("general.name", "Qwen2.5 0.5B"),
        entry("general.finetune", "Instruct"),
        *(CONTEXT, VOCABULARY, KINDS, strings("tokenizer.ggml.merges", ["a b"] * 9)),
        entry("tokenizer.chat_template", template),
        entry("tokenizer.chat_template.tool_use", "{{ y }}"),
    ]
    path.write_bytes(gguf(*entries))
    metadata = read_metadata(path)
    assert (metadata.chat_template, metadata.names) == (found, ("Qwen2.5 0.5B", "Instruct"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a GGUF"),
        (b"hello", "is not a GGUF"),
        (b"GGUF", "damaged"),
        (gguf(version=1), "damaged"),
        (gguf(count=3), "damaged"),
        (gguf(struct.pack("<Q", 2**60) + b"x"), "damaged"),
        (gguf(text("k") + struct.pack("<I", 77)), "damaged"),
        (gguf(text("k") + struct.pack("<IIQ", 9, 8, 2**60)), "damaged"),
        (gguf(text("k") + struct.pack("<IIQ", 9, 0, 2**60), CONTEXT), "damaged"),
        (gguf(text("k") + struct.pack("<IIQ", 9, 10, 2**63), CONTEXT), "damaged"),
        (gguf(text("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9000), "damaged"),
        (gguf(text("a.context_length") + struct.pack("<If", 6, math.inf)), "damaged"),
        (gguf(VOCABULARY, integers("tokenizer.ggml.token_type", [1]), CONTEXT), "damaged"),
        (gguf(VOCABULARY[:-3]), "damaged"),
    ],
)
def test_a_damaged_file_is_reported(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_metadata(path)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_metadata(tmp_path / "none.gguf")


@needs_model
def test_the_embedded_model_is_read() -> None:
    facts = read_metadata(weights())
    assert facts.context_length == 8192
    assert facts.chat_template
    assert "<|im_start|>" in facts.chat_template
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} < set(facts.control_tokens)
