"""The gRPC API that the official ``xai-sdk`` talks to. Needs the extra ``antiphon[grpc]``."""
