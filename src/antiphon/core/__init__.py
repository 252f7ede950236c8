"""Pure data: items, deltas, events, turns and ids. No I/O."""
