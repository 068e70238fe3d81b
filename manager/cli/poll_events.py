"""`ops-manager poll-events` (contract C), once or following."""

import argparse
import os
import select
import signal
import sys
import time
from types import FrameType
from typing import NamedTuple

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


# What a pipe that is ready takes without making its writer wait (POSIX PIPE_BUF is at least 512).
_AT_ONCE = 512


class _Reached(NamedTuple):
    """How far a stream has been printed, as the cursor tells it."""

    offset: int
    place: Place
    line_count: int


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
        self._printed: _Reached | None = None
        self._saved: _Reached | None = None
        self._holding = False
        self._interrupted = False

    def run(self, trace_id: str | None) -> None:
        args = self._args
        cursor = Cursor() if args.from_start else self._read_cursor()
        intake = Intake(
            cursor.place, start_line=cursor.offset, quarantine=args.on_invalid_line == "quarantine"
        )
        if args.follow:
            signal.signal(signal.SIGINT, self._interrupt)
        stream = self._transport.events(
            self._loop_id, intake.resume(), follow=args.follow, max_events=args.max_events, trace_id=trace_id
        )
        try:
            for message in stream:
                self._take(intake, message)
                # Only now: until its events are out, the place behind a message is not to be kept. Messages
                # that announce something lead nowhere themselves.
                if message.WhichOneof("payload") not in ("opened", "invalid_line"):
                    self._printed = _Reached(intake.offset, intake.place, intake.line_count)
                if args.follow and message.HasField("bookmark"):
                    self._save()
        except OpsError as error:
            # A run that fails leaves its cursor alone (C.4); a follower never prints an event twice (L4).
            if args.follow:
                self._save()
            raise self._located(error) from error
        except KeyboardInterrupt:
            if args.follow:
                self._save()
            raise
        finally:
            stream.close()  # type: ignore[attr-defined]
        self._save()

    def _take(self, intake: Intake, message: sprite_pb2.WatchEventsResponse) -> None:
        reached = intake.place.line
        change = intake.change
        intake.accept(message)
        if intake.change is not change and intake.change is not None:
            _note(f"{intake.change.verdict}: reading {self._events_file} from line 1 again")
        if message.HasField("batch") and message.batch.last_line > reached:
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
            self._print(data, intake)
            for bad in intake.bad_lines:
                _note(f"{bad.reason}: passed {self._events_file} line {bad.line}, sha256 {bad.sha256}")
            intake.bad_lines.clear()

    def _print(self, data: bytes, intake: Intake) -> None:
        """Print the events up to the place of `intake`, which from then on counts as printed.

        An interrupt may come at any time: before the last byte the events do not count, after it they do.
        """
        out = sys.stdout.buffer
        last = data[-_AT_ONCE:] if self._args.follow else b""
        out.write(data[: len(data) - len(last)])
        out.flush()
        if last:
            select.select([], [out], [])
        self._holding = True
        out.write(last)
        out.flush()
        self._printed = _Reached(intake.offset, intake.place, intake.line_count)
        self._holding = False
        if self._interrupted:
            raise KeyboardInterrupt

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt as usual, but not between the last byte and the note that it is out."""
        self._interrupted = True
        if not self._holding:
            raise KeyboardInterrupt

    def _read_cursor(self) -> Cursor:
        try:
            return read_cursor(files.read_json(self._cursor_file, what="cursor"), self._cursor_file)
        except OpsError as error:
            raise OpsError("cursor_invalid", error.message) from error

    def _save(self) -> None:
        """Write the cursor behind what was printed, unless nothing was or a follower's has not moved."""
        reached = self._printed
        if reached is None or (self._args.follow and reached == self._saved):
            return
        document = cursor_document(
            Cursor(reached.offset, reached.place),
            now=time.time(),
            repo_path=self._repo,
            loop_id=self._loop_id,
            line_count=reached.line_count,
        )
        files.write_atomic(self._cursor_file, jsontext.pretty(document) + b"\n")
        self._saved = reached

    def _located(self, error: OpsError) -> OpsError:
        """The error with the file that it is about, as contract C.2 wants it."""
        if error.row.fault.value == "data" and self._events_file not in error.message:
            return OpsError(error.reason, f"{self._events_file}: {error.message}")
        return error


def _note(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"note: {text}\n")
    sys.stderr.flush()
