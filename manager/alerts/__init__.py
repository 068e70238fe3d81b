"""Telling people: escalations go to sinks outside (contract I).

`dispatch` is one pass over what is new, `after_pass` the same inside reconcile; `posting` speaks HTTP.
"""
