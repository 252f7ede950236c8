"""Runs functions by name, one after another, and prints what each came to as one JSON object."""

import asyncio
import inspect
import json
import sys
import traceback


def run(functions):
    """Run those of a module's functions that the command line names, in that order."""
    outcomes = {}
    # Clients hold connections that belong to an event loop: there is one for all functions.
    with asyncio.Runner() as runner:
        for name in sys.argv[1:]:
            try:
                value = functions[name]()
                if inspect.isawaitable(value):
                    value = runner.run(value)
                outcomes[name] = {"value": value}
            except Exception:
                outcomes[name] = {"error": traceback.format_exc()}
    print(json.dumps(outcomes))
