"""A customer support bot for a food delivery app: how to build on antiphon."""
