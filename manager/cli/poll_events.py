"""`ops-manager poll-events` (contract C), once or following."""

import argparse
import os
import sys
import time

from manager.cli.args import add_loop_flags
from manager.cli.output import add_output_flags, chosen_form
from manager.cli.source import add_source_flags, open_source, tell_retry
from manager.core.cursor import Cursor, Place, cursor_document, read_cursor
from manager.core.intake import Intake
from manager.transport import Retry, Transport
from sprite_agent.runtime.layout import resolve_repo
from spritemesh import files, jsontext
from spritemesh.bridge import event_to_json
from spritemesh.commandline import choice, digits
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id, validate_trace_id
from spritemesh.program import long_lived
from superloop.ops.v1 import sprite_pb2


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_loop_flags(parser)
    parser.add_argument(
        "--cursor-file",
        metavar="FILE",
        help="cursor (default: ops-manager.cursor.json in the loop directory)",
    )
    parser.add_argument("--from-start", action="store_true", help="start at line 1, whatever the cursor says")
    parser.add_argument(
        "--max-events",
        type=digits,
        default=0,
        metavar="N",
        help="stop after N events; 0 is no limit (default)",
    )
    parser.add_argument("--trace-id", metavar="ID", help="becomes traceId of the events (default: null)")
    parser.add_argument("--follow", action="store_true", help="stay, and print what is appended")
    parser.add_argument(
        "--on-invalid-line",
        type=choice("fail", "quarantine"),
        default="fail",
        metavar="WAY",
        help="fail (default), or quarantine: note the line on standard error and go on behind it",
    )
    add_source_flags(parser)
    add_output_flags(parser, pretty=False)


def run(args: argparse.Namespace) -> int:
    """Print the events after the cursor and move it."""
    repo = resolve_repo(args.repo)
    loop_id = validate_loop_id(args.loop, field="--loop")
    trace_id = validate_trace_id(args.trace_id, field="--trace-id") if args.trace_id else None
    loop_directory = os.path.join(repo, ".superloop", "loops", loop_id)
    cursor_file = os.path.abspath(args.cursor_file or os.path.join(loop_directory, "ops-manager.cursor.json"))
    if args.follow:
        long_lived()
    transport = open_source(args, repo, Retry(told=tell_retry))
    try:
        poll = _Poll(transport, args, repo, loop_id, cursor_file)
        poll.run(trace_id)
    finally:
        transport.close()
    return 0


class _Poll:
    """One run: from the cursor, through the stream, to the cursor."""

    def __init__(
        self, transport: Transport, args: argparse.Namespace, repo: str, loop_id: str, cursor_file: str
    ) -> None:
        self._transport = transport
        self._args = args
        self._repo = repo
        self._loop_id = loop_id
        self._cursor_file = cursor_file
        self._events_file = f".superloop/loops/{loop_id}/events.jsonl"
        self._form = chosen_form(output=args.output)
        self._saved: tuple[int, Place, int] | None = None

    def run(self, trace_id: str | None) -> None:
        args = self._args
        cursor = Cursor() if args.from_start else self._read_cursor()
        intake = Intake(
            cursor.place, start_line=cursor.offset, quarantine=args.on_invalid_line == "quarantine"
        )
        stream = self._transport.events(
            self._loop_id, intake.resume(), follow=args.follow, max_events=args.max_events, trace_id=trace_id
        )
        try:
            for message in stream:
                self._take(intake, message)
                if args.follow and message.HasField("bookmark"):
                    self._save(intake)
        except OpsError as error:
            raise self._located(error) from error
        except KeyboardInterrupt:
            if not args.follow:
                raise
            self._save(intake)  # what was printed is not printed again
            raise
        finally:
            stream.close()  # type: ignore[attr-defined]
        self._save(intake)

    def _take(self, intake: Intake, message: sprite_pb2.WatchEventsResponse) -> None:
        reached = intake.place.line
        change = intake.change
        intake.accept(message)
        if intake.change is not change and intake.change is not None:
            _note(f"{intake.change.verdict}: reading {self._events_file} from line 1 again")
        if message.HasField("batch") and message.batch.last_line > reached:
            # What Intake keeps for a whole pass is not needed here: a follower runs for weeks.
            intake.values.clear()
            documents = (
                event_to_json(message.batch, event) for event in message.batch.events if event.line > reached
            )
            if self._form == "table":
                from manager import render

                text = "".join(render.event_line(document) + "\n" for document in documents)
                data = text.encode("utf-8", "replace")
            elif self._form == "pretty":
                data = b"".join(jsontext.pretty(document) + b"\n" for document in documents)
            else:
                data = b"".join(jsontext.encode(document) + b"\n" for document in documents)
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            for bad in intake.bad_lines:
                _note(f"{bad.reason}: passed {self._events_file} line {bad.line}, sha256 {bad.sha256}")
            intake.bad_lines.clear()

    def _read_cursor(self) -> Cursor:
        try:
            return read_cursor(files.read_json(self._cursor_file, what="cursor"), self._cursor_file)
        except OpsError as error:
            raise OpsError("cursor_invalid", error.message) from error

    def _save(self, intake: Intake) -> None:
        """Write the cursor, unless a follower's has not moved."""
        state = (intake.offset, intake.place, intake.line_count)
        if self._args.follow and state == self._saved:
            return
        document = cursor_document(
            Cursor(intake.offset, intake.place),
            now=time.time(),
            repo_path=self._repo,
            loop_id=self._loop_id,
            line_count=intake.line_count,
        )
        files.write_atomic(self._cursor_file, jsontext.pretty(document) + b"\n")
        self._saved = state

    def _located(self, error: OpsError) -> OpsError:
        """The error with the file that it is about, as contract C.2 wants it."""
        if error.row.fault.value == "data" and self._events_file not in error.message:
            return OpsError(error.reason, f"{self._events_file}: {error.message}")
        return error


def _note(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"note: {text}\n")
    sys.stderr.flush()
