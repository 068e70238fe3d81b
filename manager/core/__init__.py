"""Decisions as pure functions: documents and messages in, documents out.

Nothing here does I/O, reads a clock or draws a random number; `now` (epoch seconds) and ids are
arguments. Documents are plain dictionaries whose member order is the contract's.
"""
