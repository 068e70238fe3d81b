"""What a command prints: v1 JSON for programs, a table or tree for people (contract 0.1)."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from spritemesh import jsontext
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON

if TYPE_CHECKING:
    from rich.console import RenderableType

# Makes what a person sees of a document.
Table = Callable[[JSON], "RenderableType"]

FORMS = ("json", "pretty", "table")
# Kinds of terminals on which nothing can be drawn over.
_PLAIN_TERMINALS = ("dumb", "unknown")
# Delete, the other control characters, line ends of other scripts, and what changes the direction of text.
_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def add_output_flags(parser: argparse.ArgumentParser, *, pretty: bool = True) -> None:
    """`--output`, and v1's `--pretty` for the commands that have it."""
    if pretty:
        parser.add_argument("--pretty", action="store_true", help="same as --output pretty")
    parser.add_argument(
        "--output",
        choices=FORMS,
        metavar="FORM",
        help="json (one line), pretty (indented JSON) or table (for people);"
        " default: table on a terminal, json elsewhere",
    )


def emit(
    document: JSON, *, pretty: bool = False, output: str | None = None, table: Table | None = None
) -> None:
    """Print `document` in the form that `output` names.

    Without `output`: indented JSON with `pretty`; otherwise for people on a terminal, one line of JSON
    elsewhere. table: makes the people's form, by default a tree of all members. Raises OpsError
    `state_unwritable` when standard output cannot take it; BrokenPipeError passes.
    """
    form = chosen_form(pretty=pretty, output=output)
    if form == "table":
        show(document, table)
    else:
        data = (jsontext.pretty if form == "pretty" else jsontext.encode)(document)
        write((_harmless(data) if sys.stdout.isatty() else data) + b"\n")


def chosen_form(*, pretty: bool = False, output: str | None = None) -> str:
    """One of FORMS, as `emit` chooses it."""
    if output is not None:
        return output
    if pretty:
        return "pretty"
    return "table" if sys.stdout.isatty() else "json"


def can_draw() -> bool:
    """Whether standard output is a terminal on which a picture can be drawn again and again."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in _PLAIN_TERMINALS


def show(document: JSON, table: Table | None = None) -> None:
    """Print the people's form of `document`; without colour where standard output is no terminal."""
    from manager import render

    write(render.to_text(table or render.tree, document, sys.stdout).encode("utf-8", "replace"))


def _harmless(data: bytes) -> bytes:
    """The same JSON for a terminal: what could steer it, or turn text around, stands as escapes. Those up to
    U+001F are that in all JSON."""
    return _STEERING.sub(lambda found: rf"\u{ord(found[0]):04x}", data.decode()).encode()


def write(data: bytes) -> None:
    """Write to standard output now. Errors as `emit`."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OpsError("state_unwritable", f"cannot write to standard output: {error.strerror}") from error
