"""The API people import: conversations with a model, async or not."""
