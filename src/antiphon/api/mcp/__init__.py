"""The Model Context Protocol: conversations as tools, resources and a prompt."""
