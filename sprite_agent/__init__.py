"""The program inside a sprite: reads the runtime's files, serves them over gRPC."""
