"""`confirm-intent`: look for the effect of an intent that was carried out before (contract E.3, K)."""

import argparse
import sys

from manager.cli.args import add_loop_flags
from manager.cli.control import add_intent_flags
from manager.cli.output import add_output_flags, emit
from manager.cli.source import add_source_flags, open_source
from manager.transport import Retry, Transport
from sprite_agent.control.confirm import ChangeWait, confirm
from sprite_agent.control.observation import Observation, observation_of, observe
from sprite_agent.runtime.layout import resolve_repo
from sprite_agent.runtime.repository import Repository
from sprite_agent.runtime.watch import loop_directories
from spritemesh.bridge.told import confirm_document
from spritemesh.commandline import refused
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id
from superloop.ops.v1 import control_pb2 as pb

_LONGEST_SECONDS = 24 * 60 * 60


def configure(parser: argparse.ArgumentParser) -> None:
    add_loop_flags(parser)
    add_intent_flags(parser)
    add_source_flags(parser)
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    repo = resolve_repo(args.repo)
    loop_id = validate_loop_id(args.loop, field="--loop")
    for flag, seconds in (
        ("--timeout-seconds", args.timeout_seconds),
        ("--interval-seconds", args.interval_seconds),
    ):
        if seconds > _LONGEST_SECONDS:
            raise refused(flag, f"must be at most {_LONGEST_SECONDS}, not {seconds}")
    found = _through_service(args, repo) if args.service_base_url else _here(args, repo, loop_id)
    emit(confirm_document(args.intent, found), pretty=args.pretty, output=args.output)
    return 0 if found.confirmed else 1


def _here(args: argparse.Namespace, repo: str, loop_id: str) -> pb.ControlConfirmation:
    """Looks at each change of the loop's files, and at each interval."""
    repository = Repository(repo)
    try:
        reader = repository.loop(loop_id)
        with ChangeWait(loop_directories(reader.repo, reader.paths.directory)) as wait:
            found, _ = confirm(
                args.intent,
                lambda: observe(reader),
                timeout_seconds=args.timeout_seconds,
                interval_seconds=args.interval_seconds,
                wait=wait,
            )
    finally:
        repository.close()
    return found


def _through_service(args: argparse.Namespace, repo: str) -> pb.ControlConfirmation:
    """Looks at each interval."""
    transport = open_source(args, repo, Retry(attempts=1))
    looks = _Looks(transport, args.loop)
    try:
        found, _ = confirm(
            args.intent,
            looks.observe,
            timeout_seconds=args.timeout_seconds,
            interval_seconds=args.interval_seconds,
        )
    finally:
        transport.close()
    if looks.error is not None and not found.confirmed:
        sys.stderr.write(f"note: the last look failed: {looks.error.message} [{looks.error.reason}]\n")
    return found


class _Looks:
    """Looks at a loop through a service. error: why the last one failed."""

    def __init__(self, transport: Transport, loop_id: str) -> None:
        self._transport = transport
        self._loop_id = loop_id
        self.error: OpsError | None = None

    def observe(self) -> Observation:
        """The loop now. What an `approval_decision` decided is not in a snapshot: approval.json tells."""
        try:
            snapshot = self._transport.snapshot(self._loop_id, pass_invalid_lines=True)
        except OpsError as error:
            self.error = error
            raise
        self.error = None
        return observation_of(snapshot, "")
