"""Writes the table of reason codes into docs/runbook.md; `--check` only says whether it is current."""

import sys

from spritemesh.errors import GRPC_STATUS
from spritemesh.reasons import REASONS, Fault
from tools.pages import kept_current, spliced

PAGE = "docs/runbook.md"
BEGIN = "<!-- reasons: written by `make docs`, do not edit -->\n"
END = "<!-- end of reasons -->\n"

_GROUPS: tuple[tuple[str, frozenset[Fault]], ...] = (
    ("States and notes", frozenset({Fault.NONE})),
    (
        "The call is at fault",
        frozenset(
            {
                Fault.REQUEST,
                Fault.CREDENTIALS,
                Fault.FORBIDDEN,
                Fault.MISSING,
                Fault.CONFLICT,
                Fault.REUSED,
            }
        ),
    ),
    ("Files are at fault", frozenset({Fault.DATA})),
    (
        "The other side, or the moment",
        frozenset({Fault.BUSY, Fault.CONCURRENT, Fault.LATE, Fault.LIMIT, Fault.PEER, Fault.UNKNOWN_METHOD}),
    ),
    ("Our own fault", frozenset({Fault.INTERNAL})),
)


def tables() -> str:
    """The generated part of the page."""
    parts = []
    for title, faults in _GROUPS:
        rows = [row for row in REASONS.values() if row.fault in faults]
        parts.append(f"### {title}\n\n| code | severity | gRPC status | what it means | what to do next |\n")
        parts.append("|---|---|---|---|---|\n")
        for row in sorted(rows):
            status = "" if row.fault is Fault.NONE else GRPC_STATUS[row.fault]
            parts.append(f"| `{row.code}` | {row.severity} | {status} | {row.meaning} | {row.next_step} |\n")
        parts.append("\n")
    return "".join(parts)


def updated(page: str) -> str:
    """`page` with the generated part made anew."""
    return spliced(page, tables(), begin=BEGIN, end=END)


def main() -> int:
    """Exit code 1 with `--check` when the page is not current."""
    return kept_current(PAGE, updated)


if __name__ == "__main__":
    sys.exit(main())
