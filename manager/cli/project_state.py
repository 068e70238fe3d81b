"""`project-state`: derive a loop's state from a snapshot and events (contract F, K)."""

import argparse
import os
import time

from manager import render
from manager.cli.args import add_loop_flags
from manager.cli.output import add_output_flags, emit
from manager.core.projection import Seen, check_event, check_loop, project, seen_in_document, seen_in_message
from manager.store import LoopStore, loop_files
from sprite_agent.runtime.layout import resolve_repo
from spritemesh import files, jsontext
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    parser.add_argument("--snapshot-file", metavar="FILE", help="snapshot envelope; absent: one is taken now")
    parser.add_argument("--events-file", metavar="FILE", help="event envelopes, one a line; absent: none")
    parser.add_argument("--state-file", metavar="FILE", help="document to replace; absent: the loop's own")
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo)
    paths = loop_files(repo, args.loop, {"state": args.state_file})
    snapshot, snapshot_file = _snapshot(args.snapshot_file, repo, args.loop)
    last_event = _last_event(args.events_file, args.loop)
    with LoopStore(paths).lock():
        document = project(
            snapshot,
            last_event,
            _previous(paths.state),
            now=time.time(),
            repo_path=repo,
            loop_id=args.loop,
            snapshot_file=snapshot_file,
            events_file=args.events_file,
        )
        # v1 writes the file as it prints the document (contract 0.1).
        encode = jsontext.pretty if args.pretty else jsontext.encode
        files.write_atomic(paths.state, encode(document) + b"\n")
    emit(document, pretty=args.pretty, output=args.output, table=render.state)
    return 0


def _snapshot(path: str | None, repo: str, loop_id: str) -> tuple[Seen, str]:
    """The snapshot, and the file that it is evidence of."""
    if path is None:
        from manager.transport import open_transport

        transport = open_transport("local", repo=repo)
        try:
            # The log outlasts the snapshot, and is what it was made from (L24).
            log = os.path.join(repo, ".superloop", "loops", loop_id, "events.jsonl")
            return seen_in_message(transport.snapshot(loop_id)), log
        finally:
            transport.close()
    document = files.read_json(path, what="snapshot")
    if document is None and not os.path.isfile(path):
        raise OpsError("document_missing", f"snapshot {path} does not exist")
    seen = seen_in_document(document, what=f"snapshot {path}")
    # Before anything is made or locked for this loop.
    check_loop(f"snapshot {path}", seen.loop_id, loop_id)
    return seen, path


def _last_event(path: str | None, loop_id: str) -> JSON:
    """The last envelope of the file as it stands there, after all of them were checked; None: no event."""
    if path is None:
        return None
    try:
        data = files.read_bytes(path)
    except OSError as error:
        raise OpsError("document_invalid", f"events {path} cannot be read: {error.strerror}") from error
    if data is None:
        raise OpsError("document_missing", f"events {path} do not exist")
    last: JSON = None
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"events {path} line {number}"
        try:
            last = jsontext.parse(line)
        except jsontext.JSONError as error:
            raise OpsError("document_invalid", f"{where} is not valid JSON: {error}") from error
        check_event(last, what=where, loop_id=loop_id)
    return last


def _previous(path: str) -> JSON:
    """The document before this one; one that cannot be read counts as none (contract F)."""
    try:
        return files.read_object(path)
    except OpsError:
        return None
