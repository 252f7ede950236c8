"""Tool files: the ``@tool`` functions of a Python file that the user names."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from antiphon.errors import ConfigError
from antiphon.tools.function_tool import Tool


def load_tool_file(path: Path) -> list[Tool[..., Any]]:
    """Run a Python file and return its tools, in their order. Raises ``ConfigError``."""
    if not path.is_file():
        raise ConfigError(f"--tools {path}: there is no such file")
    name = f"antiphon_tools_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--tools {path}: that is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Type hints of its functions are looked up by the module's name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"--tools {path}: {type(error).__name__}: {error}") from error
    tools = [one for one in vars(module).values() if isinstance(one, Tool)]
    if not tools:
        raise ConfigError(f"--tools {path}: it has no function with @tool")
    return tools
