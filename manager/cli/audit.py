"""`ops-manager audit verify`: find what was altered, removed or reordered in the audit of invocations."""

import argparse
import os
from typing import TYPE_CHECKING

from manager.cli.output import add_output_flags, emit
from sprite_agent.runtime.layout import ops_directory, resolve_repo
from spritemesh.audit import audit_files
from spritemesh.commandline import not_empty, refused
from spritemesh.ids import printable, validate_loop_id
from spritemesh.jsontext import JSON
from spritemesh.program import fail
from spritemesh.values import get

if TYPE_CHECKING:
    from spritemesh.auditchain import Head

_REASON = "audit_tampered"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare word and flags."""
    parser.add_argument("what", nargs="?", default="", metavar="verify", help="what to do: verify")
    parser.add_argument("--repo", metavar="DIR", help="repository (default: current directory)")
    parser.add_argument("--loop", metavar="ID", help="only this loop's audit (default: all loops)")
    parser.add_argument(
        "--expect",
        type=not_empty,
        metavar="HEAD",
        help="a head that was printed earlier, LINE:CHAIN; what it stands for must be there still (one loop)",
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was found; 1 when anything is at fault."""
    if args.what != "verify":
        raise refused("audit", f"takes the word verify, not {args.what!r}")
    repo = resolve_repo(args.repo or ".")
    from manager import render_audit
    from manager.store.traces import known_loops
    from spritemesh.auditchain import read_head

    expected: Head | None = None
    if args.expect:
        if not args.loop:
            raise refused("--expect", "takes the head of one loop: name it with --loop")
        expected = read_head(args.expect)
        if expected is None:
            raise refused("--expect", "must be a line number, a colon and 64 hexadecimal digits")
    loops = [validate_loop_id(args.loop, field="--loop")] if args.loop else known_loops(repo)
    told = [_loop(repo, loop_id, expected) for loop_id in loops]
    faults = [loop for loop in told if "fault" in loop]
    status = "tampered" if faults else "whole"
    document: JSON = {"repo": repo, "status": status, "loops": told}
    emit(document, pretty=args.pretty, output=args.output, table=render_audit.audit)
    for loop in faults:
        fail(f"loop {printable(loop['loopId'])}: {get(loop, 'fault', 'message')}", _REASON)
    return 1 if faults else 0


def _loop(repo: str, loop_id: str, expected: "Head | None") -> dict[str, JSON]:
    """What is found of one loop."""
    from manager.audit_check import check

    paths = audit_files(ops_directory(repo, loop_id)).chained
    found = check(paths, expected)
    fault = found.fault
    if fault is not None:
        status = "tampered"
    elif not found.has_audit:
        status = "no_audit"
    else:
        status = "whole" if found.chained else "no_chain"
    told: dict[str, JSON] = {
        "loopId": loop_id,
        "status": status,
        "lines": found.lines,
        "chained": found.chained,
        "head": found.head.text(),
        "notes": [
            {"kind": note.kind, "count": note.number, "firstLine": note.first, "lastLine": note.last}
            for note in found.notes
        ],
    }
    if fault is not None:
        file = os.path.relpath(getattr(paths, fault.file), repo)
        told["fault"] = {
            "kind": fault.kind,
            "file": file,
            "line": fault.line,
            "message": f"line {fault.line} {fault.what} ({file})",
            "idempotencyKey": fault.key,
            "at": fault.at,
        }
    return told
