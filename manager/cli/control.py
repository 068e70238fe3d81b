"""`control`: step in once: cancel a loop, or decide what it waits for (contract E, K)."""

import argparse
import os
import sys
import time

from manager import render_control
from manager.cli.args import add_loop_flags, add_trace_flag, trace_id_of_environment
from manager.cli.output import add_output_flags, chosen_form, emit, show
from manager.cli.source import add_transport_flags, check_transport, chosen_retry, open_chosen
from manager.control import Done, Way, step_in
from manager.transport import SPRITE_SERVICE, Runtime
from sprite_agent.connected import connected_of, connected_text
from sprite_agent.runtime.layout import resolve_repo
from spritemesh import jsontext
from spritemesh.bridge.told import AMBIGUOUS, exit_code
from spritemesh.commandline import choice, digits, keep_empty, positive, refused
from spritemesh.control import (
    INTENTS,
    Confirmation,
    ControlRequest,
    check_request,
    new_key,
    repeat_hint,
)
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.program import fail
from spritemesh.reasons import REASONS
from spritemesh.values import get
from superloop.ops.v1 import control_pb2 as pb

# Field of a request -> flag, for messages.
_FLAGS = {
    "loop_id": "--loop",
    "idempotency_key": "--idempotency-key",
    "requested_by": "--by",
    "note": "--note",
    "trace_id": "--trace-id",
    "confirmation.timeout": "--timeout-seconds",
    "confirmation.interval": "--interval-seconds",
    "expected_run_id": "--expect-run-id",
    "expected_approval_id": "--expect-approval",
}
# Of these the status says all that is known.
_TOLD_BY_STATUS = frozenset({"", "control_ambiguous", "control_failed_command"})


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    add_intent_flags(parser)
    parser.add_argument(
        "--by", type=keep_empty, metavar="NAME", help="who asks (default: $USER, or else unknown)"
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="why; the runtime records it")
    parser.add_argument("--no-confirm", action="store_true", help="do not look for the effect")
    parser.add_argument(
        "--expect-run-id", default="", metavar="ID", help="refuse if the loop's run is another one by now"
    )
    parser.add_argument(
        "--expect-approval",
        default="",
        metavar="ID",
        help="refuse unless what is pending is the approval whose file had this SHA-256 in a snapshot",
    )
    parser.add_argument(
        "--require-pending",
        action="store_true",
        help="refuse to approve or reject when nothing is pending, instead of leaving it to the runtime",
    )
    parser.add_argument(
        "--despite-clone",
        action="store_true",
        help="step in although a running manager found two agents under the sprite's id",
    )
    parser.add_argument(
        "--idempotency-key",
        metavar="KEY",
        help="stands for this decision: repeated, it runs nothing and tells what came of it;"
        " absent: a new one",
    )
    add_trace_flag(parser)
    _configure_transport(parser)
    add_output_flags(parser)


def add_intent_flags(parser: argparse.ArgumentParser) -> None:
    """`--intent`, and how long to look for its effect."""
    parser.add_argument(
        "--intent",
        required=True,
        type=choice(*INTENTS),
        metavar="INTENT",
        help=f"{', '.join(INTENTS[:-1])} or {INTENTS[-1]} (required)",
    )
    parser.add_argument(
        "--timeout-seconds",
        type=digits,
        default=30,
        metavar="N",
        help="look for the effect so long; 0: once (default 30)",
    )
    parser.add_argument(
        "--interval-seconds",
        type=digits,
        default=2,
        metavar="N",
        help="look at least so often; 0 means 1 (default 2)",
    )


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo)
    request = _request(args)
    way = _way(args, repo)
    try:
        done = step_in(repo, request, way)
    except KeyboardInterrupt:
        sys.stderr.write(f"note: interrupted; {repeat_hint(request)}\n")
        raise
    finally:
        way.transport.close()
    form = chosen_form(pretty=args.pretty, output=args.output)
    if form == "table":
        show(_for_people(done), render_control.control)
    else:
        emit(done.row, output=form)
    _tell(done, reasons=form != "table")
    return exit_code(done.controlled.told.status)


def _configure_transport(parser: argparse.ArgumentParser) -> None:
    add_transport_flags(
        parser,
        local="run the runtime here",
        attempts=positive,
        attempts_help="tries of a request, all with one key; what a v1 service may have is not sent again",
    )
    parser.add_argument(
        "--runtime-command",
        metavar="PROGRAM",
        help="the runtime, with transport local (default: $SUPERLOOP_BIN, or else superloop.sh)",
    )
    parser.add_argument(
        "--runtime-timeout-seconds",
        type=positive,
        default=int(Runtime().timeout_seconds),
        metavar="N",
        help="end the runtime's command after so long, with transport local (default 60)",
    )


def _request(args: argparse.Namespace) -> ControlRequest:
    """What the flags ask for, checked; messages name the flag."""
    by = args.by if args.by is not None else os.environ.get("USER") or "unknown"
    request = ControlRequest(
        loop_id=args.loop,
        intent=args.intent,
        idempotency_key=args.idempotency_key or new_key(args.intent, time.time()),
        requested_by=by,
        note=args.note,
        trace_id=trace_id_of_environment(args.trace_id),
        confirmation=Confirmation(args.no_confirm, args.timeout_seconds, args.interval_seconds),
        expected_run_id=args.expect_run_id,
        expected_approval_id=args.expect_approval,
        # v1 lets the runtime decide.
        even_if_nothing_pending=not args.require_pending,
    )
    try:
        return check_request(request)
    except OpsError as error:
        flag = _FLAGS.get(error.field, error.field)
        message = error.message.replace(error.field, flag, 1)
        raise OpsError(error.reason, message, field=flag) from error


def _way(args: argparse.Namespace, repo: str) -> Way:
    check_transport(args)
    if args.transport == SPRITE_SERVICE and args.runtime_command:
        raise refused("--runtime-command", "has no effect with --transport sprite_service")
    transport = open_chosen(args, repo, Runtime(args.runtime_command, args.runtime_timeout_seconds))
    return Way(transport, chosen_retry(args), args.service_base_url or "", despite_clone=args.despite_clone)


def _for_people(done: Done) -> dict[str, JSON]:
    """The row, and what v1 has no member for: what confirmed it, why it ended so, and whether it is old."""
    told, outcome, _, error = done.controlled
    return {
        **done.row,
        "commandOutput": _output(done),
        "replayed": told.replayed,
        "reason": error.reason if error is not None else _reason(done) or told.reason_code,
        "effect": _effect(outcome.effect) if outcome is not None else None,
        "connected": connected_text(connected_of(outcome)) or None if outcome is not None else None,
    }


def _output(done: Done) -> JSON:
    """What the runtime's command wrote; in the row of a service it is wrapped into the answer."""
    outcome = done.controlled.outcome
    return get(_answer(done), "result", "commandOutput") if outcome is None else outcome.output_tail


def _answer(done: Done) -> JSON:
    """The document that a service answered with; None when there is none."""
    try:
        return jsontext.parse(done.controlled.told.command_output)
    except jsontext.JSONError:
        return None


def _effect(effect: pb.ControlEffect) -> JSON:
    kind = effect.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "event":
        event = effect.event
        return {"event": event.name, "line": event.position.line, "timestamp": event.timestamp}
    change = effect.state if kind == "state" else effect.already
    before, after = (text or "nothing" for text in (change.before, change.after))
    return {
        "file": change.path,
        change.member: f"{before} -> {after}" if kind == "state" else f"{after}, as before the command",
    }


def _reason(done: Done) -> str:
    """Why it ended so, where that is finer than the status."""
    told, outcome = done.controlled.told, done.controlled.outcome
    if outcome is not None:
        reason = outcome.reason
    else:
        # An agent's bridge says `<reason>: <meaning>` there.
        said = get(_answer(done), "stderr")
        word = said.partition(":")[0] if isinstance(said, str) else ""
        reason = told.reason or (word if word in REASONS else "")
    return "" if reason in _TOLD_BY_STATUS else reason


def _tell(done: Done, *, reasons: bool) -> None:
    """Say on standard error what the row does not."""
    error, reason = done.controlled.error, _reason(done)
    if error is not None:
        fail(error.message, error.reason)
    elif reason and reasons and done.controlled.told.status == AMBIGUOUS:
        # A command that failed says why by its output, which is in the row.
        meaning = REASONS[reason].meaning if reason in REASONS else "for a reason that is not known here"
        fail(meaning, reason)
