"""Forked program: hands its files and arguments to a program parent, and ends as the fork does.

    python -S forked_program.py SOCKET ARGUMENT...

It stands in where a command has to be named that others start: it loads next to nothing. When it
is killed, so is the fork.
"""

import json
import os
import socket
import sys


def main() -> int:
    at, *args = sys.argv[1:]
    link = socket.socket(socket.AF_UNIX)
    link.connect(at)
    request = {"args": args, "env": dict(os.environ), "cwd": os.getcwd(), "has_terminal": False}
    socket.send_fds(link, [json.dumps(request).encode()], [0, 1, 2])
    # Whoever reads from the fork sees its end, and not that of this process.
    for file in (0, 1):
        os.close(file)
    answers = link.makefile("r")
    answers.readline()
    code = int(answers.readline() or "1")
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    # Its standard output is closed: nothing is left to flush.
    os._exit(main())
