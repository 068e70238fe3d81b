"""`status`: tell how a loop is, from the manager's files, and write nothing (contract J, K)."""

import argparse
import os
import time
from typing import NamedTuple

from manager import render
from manager.cli.args import add_loop_flags
from manager.cli.output import add_output_flags, emit
from manager.cli.telemetry_summary import DEFAULT_WINDOW, summary
from manager.core.status import Known, status_document
from manager.store import LoopFiles, LoopStore, loop_files
from sprite_agent.runtime.layout import resolve_repo
from spritemesh import files
from spritemesh.commandline import positive
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import get


class Place(NamedTuple):
    """One of the files. field: its name in LoopFiles."""

    member: str
    field: str

    @property
    def flag(self) -> str:
        """The flag that names another file: `stateFile` -> `--state-file`."""
        return "--" + "".join(f"-{char.lower()}" if char.isupper() else char for char in self.member)


# Member of the document's `files` -> file, in the order of contract J. The last two have no flag (K).
_PLACES = (
    Place("stateFile", "state"),
    Place("cursorFile", "cursor"),
    Place("healthFile", "health"),
    Place("intentsFile", "intents"),
    Place("heartbeatStateFile", "heartbeat"),
    Place("heartbeatTelemetryFile", "heartbeat_telemetry"),
    Place("sequenceStateFile", "sequence_state"),
    Place("sequenceTelemetryFile", "sequence_telemetry"),
    Place("controlInvocationsFile", "control_invocations"),
    Place("driftStateFile", "drift_state"),
    Place("driftHistoryFile", "drift_history"),
    Place("alertDispatchStateFile", "alert_state"),
    Place("alertDispatchTelemetryFile", "alert_telemetry"),
    Place("reconcileTelemetryFile", "reconcile_telemetry"),
    Place("controlTelemetryFile", "control_telemetry"),
)
_WITH_FLAG = _PLACES[:-2]


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    for place in _WITH_FLAG:
        what = place.flag.removeprefix("--").removesuffix("-file").replace("-", " ")
        parser.add_argument(
            place.flag, dest=place.member, metavar="FILE", help=f"{what}; absent: the loop's own"
        )
    parser.add_argument(
        "--summary-window",
        type=positive,
        default=DEFAULT_WINDOW,
        metavar="N",
        help=f"passes to sum up, the last ones (default {DEFAULT_WINDOW})",
    )
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo)
    own = loop_files(repo, args.loop)
    paths = {place.member: _path(place, own, getattr(args, place.member, None)) for place in _PLACES}
    if not any(os.path.isfile(paths[member]) for member in ("stateFile", "healthFile")):
        raise OpsError(
            "document_missing",
            f"loop {args.loop} has neither {paths['stateFile']} nor {paths['healthFile']}:"
            " it has not been reconciled yet",
        )
    now = time.time()
    known = _known(paths)._replace(summary=_summary(own, repo, args, now))
    document = status_document(
        known,
        now_text=format_utc(now),
        repo_path=repo,
        loop_id=args.loop,
        window=args.summary_window,
        files=paths,
    )
    failure = get(known.last_reconcile, "failureMessage")
    emit(document, pretty=args.pretty, output=args.output, table=lambda shown: render.status(shown, failure))
    return 0


def _path(place: Place, own: LoopFiles, given: str | None) -> str:
    if given:
        return os.path.abspath(given)
    path: str = getattr(own, place.field)
    return path


def _known(paths: dict[str, str]) -> Known:
    """What the files say. Raises OpsError `document_invalid`, naming the path, for a damaged document."""

    def document(member: str) -> JSON:
        return files.read_object(paths[member], what=member.removesuffix("File"))

    def last_row(member: str) -> JSON:
        """The last line of a log; None when there is none, or it is damaged (contract J)."""
        rows, _ = LoopStore.tail_rows(paths[member], 1)
        return rows[-1] if rows else None

    return Known(
        state=document("stateFile"),
        cursor=document("cursorFile"),
        health=document("healthFile"),
        heartbeat=document("heartbeatStateFile"),
        sequence=document("sequenceStateFile"),
        drift=document("driftStateFile"),
        dispatch=document("alertDispatchStateFile"),
        last_intent=last_row("intentsFile"),
        last_reconcile=last_row("reconcileTelemetryFile"),
        last_control=last_row("controlTelemetryFile"),
        last_invocation=last_row("controlInvocationsFile"),
        last_heartbeat=last_row("heartbeatTelemetryFile"),
        last_sequence=last_row("sequenceTelemetryFile"),
        last_alert=last_row("alertDispatchTelemetryFile"),
    )


def _summary(own: LoopFiles, repo: str, args: argparse.Namespace, now: float) -> JSON:
    """The telemetry summary; status goes on without it when there is none (contract H.2)."""
    try:
        return summary(own, repo=repo, loop_id=args.loop, window=args.summary_window, now=now)
    except OpsError:
        return None
