"""What runs the tool calls of a turn: Python functions, behind the contract of ``turn.protocols``."""
