"""Flags that nearly every command of the manager has."""

import argparse


def add_loop_flags(parser: argparse.ArgumentParser) -> None:
    """`--repo` and `--loop`."""
    parser.add_argument("--repo", required=True, metavar="DIR", help="repository of the loop (required)")
    parser.add_argument("--loop", required=True, metavar="ID", help="loop id (required)")
