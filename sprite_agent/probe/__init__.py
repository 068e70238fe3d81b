"""Asks an agent, step by step, whether it can be used: for `ops-manager doctor` and `sprite-agent check`.

Nothing here goes through the transports: a step must fail for one cause only, and at the one that is named.
"""
