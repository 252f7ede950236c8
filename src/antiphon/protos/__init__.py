"""Protobuf messages of xAI's API and of the first Chat SDK, shared by the gRPC server and the gRPC upstream."""
