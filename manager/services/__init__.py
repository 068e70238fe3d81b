"""What a running manager serves over gRPC."""

import os

# Before the first import of grpc: its fork handlers kill children now and then.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
