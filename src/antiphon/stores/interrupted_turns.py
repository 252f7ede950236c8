"""Interrupted turns: what every store does with the turns of a process that died.

A node takes over those that can be run again, and all others end. Where no node is, one may be
about to start, so they wait for it a while.
"""

from __future__ import annotations

import time
from typing import Final

from antiphon.core.turns import End, TurnError
from antiphon.errors import TurnInterruptedError

#: The owner of a turn that its process gave up.
NO_NODE: Final = 0
#: How many processes may die while they run one turn: it may be what kills them.
MAX_DEATHS: Final = 3
#: Seconds that a turn waits for a node while there is none, before whoever reads it ends it: a
#: server that is started again, with its machine, is back by then.
NODE_WAIT_SECONDS: Final = 300.0


def interrupted_end() -> End:
    """The end of a turn whose process has died."""
    message = (
        "The process that ran this turn ended before the turn did. "
        "What was said and what was finished are kept."
    )
    return End("failed", time.time(), error=TurnError(TurnInterruptedError.default_code, message))
