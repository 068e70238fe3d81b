"""`trace`: the way of one trace id through the artifacts, as a tree, or the last trace ids."""

import argparse
import sys

from manager import render_trace
from manager.cli.output import add_output_flags, emit
from manager.core.trace import recent_document, trace_document
from manager.core.trace_rows import Row, merge
from manager.core.trace_spans import Spans
from manager.store import loop_files
from manager.store.spans import spans_around, spans_under
from manager.store.traces import artifact_rows, known_loops
from sprite_agent.runtime.layout import resolve_repo
from spritemesh import traceindex
from spritemesh.commandline import positive, refused
from spritemesh.errors import OpsError
from spritemesh.ids import printable, validate_loop_id, validate_trace_id
from spritemesh.jsontext import JSON
from spritemesh.traceindex import Entry
from spritemesh.traceparent import other_spelling

_MAX_RECENT = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "trace_id", nargs="?", metavar="ID", help="trace id to look up, or id of a span of the runtime"
    )
    parser.add_argument("--repo", metavar="DIR", help="repository (default: current directory)")
    parser.add_argument("--loop", metavar="ID", help="only what happened to this loop")
    parser.add_argument(
        "--recent", type=positive, metavar="N", help="instead of a look-up: list the last N trace ids"
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo or ".")
    loop = validate_loop_id(args.loop, field="--loop") if args.loop else ""
    if bool(args.trace_id) == bool(args.recent):
        raise refused("ID", "or --recent is required, and not both")
    if args.recent:
        document, table = _recent(repo, loop, args.recent), render_trace.recent_traces
    else:
        document, table = (
            _look_up(repo, loop, validate_trace_id(args.trace_id, field="ID")),
            render_trace.trace,
        )
    emit(document, pretty=args.pretty, output=args.output, table=table)
    return 0


def _recent(repo: str, loop: str, count: int) -> JSON:
    if count > _MAX_RECENT:
        raise refused("--recent", f"must be at most {_MAX_RECENT}, not {count}")
    found = traceindex.recent(repo, count, loop_id=loop)
    return recent_document(repo, found.entries, count, skipped=found.damaged)


def _look_up(repo: str, loop: str, trace_id: str) -> JSON:
    """The tree of a trace; under the other spelling of its id when there is nothing under this one."""
    for spelling in filter(None, (trace_id, other_spelling(trace_id))):
        entries, skipped, left_out = _collect(repo, loop, spelling)
        spans = spans_under(repo, _loops(repo, loop, entries), spelling)
        if entries or spans.found:
            _warn(spans)
            return trace_document(spelling, repo, entries, spans=spans, skipped=skipped, left_out=left_out)
    spans, root_id = spans_around(repo, _loops(repo, loop, []), trace_id)
    if spans.found:
        _warn(spans)
        return trace_document(root_id, repo, [], spans=spans)
    if spans.problem is not None:
        raise spans.problem
    where = f"of loop {printable(loop)} in {repo}" if loop else f"in {repo}"
    raise OpsError("trace_not_found", f"no artifact {where} has trace id {printable(trace_id)}", field="ID")


def _warn(spans: Spans) -> None:
    if spans.problem is not None:
        sys.stderr.write(f"warning: traces_unavailable: {spans.problem.reason}: {spans.problem.message}\n")


def _collect(repo: str, loop: str, trace_id: str) -> tuple[list[Entry], int, int]:
    """Entries of the index and of artifacts, damaged lines, and entries left out."""
    found = traceindex.find(repo, trace_id)
    own = sorted(
        (entry for entry in found.entries if loop in ("", entry.loop_id)), key=lambda entry: entry.at
    )
    entries = merge([], map(Row, own))
    skipped = found.damaged
    for loop_id in _loops(repo, loop, entries):
        try:
            files = loop_files(repo, loop_id)
        except OpsError:
            continue
        artifacts, damaged = artifact_rows(repo, files, loop_id, trace_id)
        skipped += damaged
        for rows in artifacts:
            entries = merge(entries, rows)
    return entries, skipped, found.left_out


def _loops(repo: str, loop: str, entries: list[Entry]) -> list[str]:
    """The loops to look at. Without an index nobody knows which a trace was about."""
    return [loop] if loop else sorted({entry.loop_id for entry in entries} or known_loops(repo))
