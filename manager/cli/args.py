"""Flags that nearly every command of the manager has."""

import argparse
import os

from spritemesh.ids import new_trace_id, validate_trace_id
from spritemesh.names import TRACE_ID_VARIABLE
from spritemesh.traceparent import TRACEPARENT_VARIABLE, trace_id_of


def add_loop_flags(parser: argparse.ArgumentParser) -> None:
    """`--repo` and `--loop`."""
    parser.add_argument("--repo", required=True, metavar="DIR", help="repository of the loop (required)")
    parser.add_argument("--loop", required=True, metavar="ID", help="loop id (required)")


def add_trace_flag(parser: argparse.ArgumentParser) -> None:
    """`--trace-id`, for commands that make a trace id when they are given none."""
    parser.add_argument(
        "--trace-id",
        metavar="ID",
        help=f"trace id; absent: {TRACE_ID_VARIABLE}, that of {TRACEPARENT_VARIABLE}, or else a new one",
    )


def trace_id_of_environment(flag: str | None) -> str:
    """The trace id of `--trace-id`, OPS_MANAGER_TRACE_ID, W3C's TRACEPARENT, or else a new one.

    Contract 0.4. A malformed TRACEPARENT counts as none. Raises OpsError `invalid_trace_id`.
    """
    given = flag or os.environ.get(TRACE_ID_VARIABLE, "")
    given = given or trace_id_of(os.environ.get(TRACEPARENT_VARIABLE, ""))
    return validate_trace_id(given, field="--trace-id") if given else new_trace_id()
