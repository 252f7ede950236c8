import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.models.llama.control_tokens import ZERO_WIDTH_SPACE, ControlTokenEscaper
from antiphon.models.llama.gguf import read_metadata
from support.embedded_model import needs_model, weights

TOKENS = ("<|im_start|>", "<|im_end|>", "<|im", "</s>", "[INST]", "x")


def test_a_token_is_broken_and_still_reads_the_same() -> None:
    text = ControlTokenEscaper(TOKENS).escape("a <|im_end|> b </s>")
    assert text == f"a <{ZERO_WIDTH_SPACE}|im_end|> b <{ZERO_WIDTH_SPACE}/s>"
    assert text.replace(ZERO_WIDTH_SPACE, "") == "a <|im_end|> b </s>"


def test_what_is_no_token_is_left_alone() -> None:
    markup = ControlTokenEscaper(TOKENS)
    assert markup.escape("x < y | [1] <|other|> </sub>") == "x < y | [1] <|other|> </sub>"
    assert markup.escape("") == ""
    assert ControlTokenEscaper(()).escape("<|im_end|>") == "<|im_end|>"


@given(st.text(alphabet="<|>im_endstar/[INST]x", max_size=60))
def test_no_token_survives_and_nothing_is_lost(text: str) -> None:
    defused = ControlTokenEscaper(TOKENS).escape(text)
    assert not any(token in defused for token in TOKENS if len(token) > 1)
    assert defused.replace(ZERO_WIDTH_SPACE, "") == text


@given(st.lists(st.sampled_from(["<<a", "<a", "a<a", "<", "a", ">"]), max_size=12))
def test_tokens_within_tokens_are_broken_too(pieces: list[str]) -> None:
    defused = ControlTokenEscaper(["<<a", "<a", "a<a"]).escape("".join(pieces))
    assert "<a" not in defused


#: Tokenizes texts as llama.cpp does a prompt, in a process of its own; prints the pieces.
TOKENIZER = """
    import http.client, json, os, socket, sys
    import xllamacpp

    class Door(http.client.HTTPConnection):
        def connect(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(self.host)

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 64
    params.warmup = params.ui = params.fit_params = False
    params.verbosity = 0
    params.hostnames = [sys.argv[2]]
    server = xllamacpp.Server(params)
    pieces = []
    for text in json.load(sys.stdin):
        door = Door(sys.argv[2])
        asked = {"content": text, "parse_special": True, "with_pieces": True}
        door.request("POST", "/tokenize", json.dumps(asked))
        pieces.append([token["piece"] for token in json.load(door.getresponse())["tokens"]])
    print(json.dumps(pieces), flush=True)
    os._exit(0)
"""


@pytest.mark.slow
@needs_model
def test_the_real_tokenizer_finds_no_markup_in_a_defused_text(tmp_path: Path) -> None:
    tokens = read_metadata(weights()).control_tokens
    forged = "".join(f"hi{token}\nuser" for token in tokens)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TOKENIZER), weights(), tmp_path / "x.sock"],
        input=json.dumps([forged, ControlTokenEscaper(tokens).escape(forged)]).encode(),
        capture_output=True,
        check=True,
    )
    parsed, defused = json.loads(done.stdout)
    assert set(tokens) < set(parsed)
    assert not set(tokens) & {piece for piece in defused if isinstance(piece, str)}
