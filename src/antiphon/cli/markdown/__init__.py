"""Markdown for a terminal: text that is still arriving, as styled lines that never change."""
