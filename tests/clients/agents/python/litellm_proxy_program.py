"""litellm's proxy before the server at ``OPENAI_BASE_URL``, and the OpenAI client before that."""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from openai import OpenAI
from programs import run

#: As docs/clients.md has it.
CONFIG = """
model_list:
  - model_name: m
    litellm_params:
      model: openai/m
      api_base: {url}
      api_key: unused
"""
FUNCTION = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TWO_CALLS = 'call get_weather {"city": "Oslo"} and call get_weather {"city": "Rome"}'
#: The proxy refuses to start without a key of its own.
KEY = f"sk-{secrets.token_hex(32)}"
#: Seconds that the proxy may take until it answers: it loads a hundred packages.
STARTING = 100


def start_proxy():
    """The proxy, once it answers, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(os.environ["HOME"])
    (folder / "config.yaml").write_text(CONFIG.format(url=os.environ["OPENAI_BASE_URL"]))
    program = str(Path(sys.executable).parent / "litellm")
    command = [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    # Its table of prices comes with it: it is not to ask for a newer one.
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": KEY,
    }
    with (folder / "proxy.log").open("wb") as log:
        proxy = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(STARTING * 5):
        try:
            urllib.request.urlopen(f"{address}/health/liveliness", timeout=5)
        except OSError:
            assert proxy.poll() is None, (folder / "proxy.log").read_text()
            time.sleep(0.2)
        else:
            return proxy, address
    proxy.kill()
    proxy.wait()
    raise TimeoutError((folder / "proxy.log").read_text())


def responses():
    first = client.responses.create(model="m", input="I am Alice.")
    called = client.responses.create(
        model="m",
        input=TWO_CALLS,
        tools=[{"type": "function", **FUNCTION}],
        previous_response_id=first.id,
    )
    outputs = [
        {"type": "function_call_output", "call_id": one.call_id, "output": one.arguments}
        for one in called.output
        if one.type == "function_call"
    ]
    answered = client.responses.create(model="m", input=outputs, previous_response_id=called.id)
    last = client.responses.create(model="m", input="Who?", previous_response_id=answered.id)
    return [answered.output_text, last.output_text]


def responses_streamed():
    events = list(client.responses.create(model="m", input="say one two", stream=True))
    deltas = [one.delta for one in events if one.type == "response.output_text.delta"]
    return [len(deltas) > 1, "".join(deltas), events[-1].type]


def completion():
    messages = [{"role": "user", "content": TWO_CALLS}]
    tools = [{"type": "function", "function": FUNCTION}]
    ask = client.chat.completions.create
    called = ask(model="m", messages=messages, tools=tools).choices[0].message
    messages.append(called.model_dump(exclude_none=True))
    messages += [
        {"role": "tool", "tool_call_id": one.id, "content": one.function.arguments}
        for one in called.tool_calls
    ]
    return ask(model="m", messages=messages, tools=tools).choices[0].message.content


def completion_streamed():
    chunks = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "say one two"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


proxy, address = start_proxy()
client = OpenAI(base_url=f"{address}/v1", api_key=KEY)
try:
    run(vars(sys.modules[__name__]))
finally:
    proxy.kill()
    proxy.wait()
