"""The HTTP JSON bridge: what v1's HTTP service answers, out of the code that serves gRPC (contract D)."""
