"""Flags of the commands that look."""

import argparse


def add_timeout_flag(parser: argparse.ArgumentParser, default: float) -> None:
    """`--timeout`, seconds."""
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=default,
        metavar="SECONDS",
        help=f"how long a step may take, up to 60 (default {default:g})",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("takes seconds") from None
    if not 0 < seconds <= 60:
        raise ValueError("must be more than 0 and at most 60")
    return seconds
