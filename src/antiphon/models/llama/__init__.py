"""Embedded models: llama.cpp in a worker process."""
