"""Embedded models: llama.cpp in a child process."""
