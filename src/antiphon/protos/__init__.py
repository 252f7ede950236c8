"""Protobuf messages: xAI's API and the first Chat SDK, for the gRPC server and upstream."""
