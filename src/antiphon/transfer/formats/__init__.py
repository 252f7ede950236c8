"""Readers of the export files of chat programs, one a file. Pure."""
