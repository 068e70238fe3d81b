"""`sprite-agent check`: look at all that an agent needs inside its sprite, and ask the agent itself."""

import argparse
import os
import sys

from sprite_agent.guard import Guard, add_guard_flags, add_token_flags, read_guard
from sprite_agent.probe.disk import check_room, check_secrets
from sprite_agent.probe.flags import add_timeout_flag
from sprite_agent.probe.report import document_of, failure_of, lines_of
from sprite_agent.probe.steps import Step, Steps
from sprite_agent.runtime.layout import list_loop_ids, resolve_repo
from sprite_agent.security import DEFAULT_GRPC, Address, parse_address, read_token
from spritemesh import jsontext
from spritemesh.commandline import choice, refused
from spritemesh.ids import validate_loop_id
from spritemesh.names import SERVICE_TOKEN_VARIABLE
from spritemesh.program import fail

_DEFAULT_SECONDS = 2.0
# What is listened at everywhere is asked here.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened at


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; those that `serve` has, too, mean the same."""
    parser.add_argument("--repo", required=True, metavar="DIR", help="repository to look at (required)")
    parser.add_argument(
        "--loop", metavar="ID", help="read and ask for this loop only (default: all, and the first)"
    )
    parser.add_argument(
        "--grpc",
        default=DEFAULT_GRPC,
        metavar="HOST:PORT",
        help=f"where the agent listens; or unix:///path (default {DEFAULT_GRPC})",
    )
    parser.add_argument("--http", metavar="HOST:PORT", help="where it serves HTTP, too (default: nowhere)")
    parser.add_argument(
        "--running", action="store_true", help="fail when no agent answers there, instead of a warning"
    )
    add_token_flags(parser, "of the agent")
    add_guard_flags(parser)
    parser.add_argument(
        "--client-cert",
        metavar="FILE",
        help="certificate to show where --tls-ca wants one of clients, PEM (default: that of --tls-cert)",
    )
    parser.add_argument("--client-key", metavar="FILE", help="private key of it, PEM")
    parser.add_argument(
        "--runtime-command", metavar="PROGRAM", help="runtime program that control runs (default: as serve)"
    )
    add_timeout_flag(parser, _DEFAULT_SECONDS)
    parser.add_argument(
        "--output",
        type=choice("json", "table"),
        metavar="FORM",
        help="json (one line) or table (for people); default: table on a terminal, json elsewhere",
    )


def run(args: argparse.Namespace) -> int:
    """Print what was found; 1 when a step failed."""
    repo = resolve_repo(args.repo)
    if args.loop:
        validate_loop_id(args.loop, field="--loop")
    token = read_token(args.token, args.token_file, os.environ.get(SERVICE_TOKEN_VARIABLE))
    guard = read_guard(args, token)
    for flag, value in (("--client-cert", args.client_cert), ("--client-key", args.client_key)):
        if value and not guard.proves_peers:
            raise refused(flag, "needs --tls-ca: without it no client shows a certificate")
    places = [(parse_address(args.grpc, field="--grpc"), False)]
    if args.http:
        places.append((parse_address(args.http, field="--http", unix=False), True))
    steps, missing = _host_steps(args, repo, guard)
    for address, is_http in places:
        steps += _agent_steps(args, repo, address, guard, is_http=is_http, missing=missing)
    _show(steps, args.output)
    failure = failure_of(steps)
    return 0 if failure is None else fail(*failure)


def _host_steps(args: argparse.Namespace, repo: str, guard: Guard) -> tuple[list[Step], str]:
    """With the name of a step that failed, without which the agent cannot be asked; "" without one."""
    from sprite_agent.selfcheck import host
    from sprite_agent.selfcheck.repository import Repository
    from sprite_agent.selfcheck.serving import examine_guard

    steps = Steps(repo, seconds=args.timeout, whole=4 * args.timeout)
    repository = Repository(repo, steps, loop_id=args.loop or "")
    repository.run()
    secrets = [args.token_file or "", guard.signing_key_file, guard.tls.key if guard.tls else ""]
    steps.take("permissions", repository.check_files)
    missing = examine_guard(steps, guard, (args.client_cert or "", args.client_key or ""))
    steps.take("secrets", lambda: check_secrets(secrets))
    steps.take("disk", lambda: check_room(repo))
    steps.take("runtime", lambda: host.check_runtime(args.runtime_command))
    steps.take("inotify", lambda: host.check_inotify(repo))
    steps.take("open files", host.check_open_files)
    steps.take("clock", lambda: host.check_clock(repo))
    return steps.found, missing


def _agent_steps(
    args: argparse.Namespace, repo: str, address: Address, guard: Guard, *, is_http: bool, missing: str
) -> list[Step]:
    from sprite_agent.probe.probing import steps_for
    from sprite_agent.probe.target import Target
    from sprite_agent.selfcheck.listening import Listening
    from sprite_agent.selfcheck.serving import check_open
    from spritemesh.endpoints import Trust
    from spritemesh.signer import signer_of

    trust = None
    if guard.tls is not None and address.host:
        shown = (args.client_cert or guard.tls.cert, args.client_key or guard.tls.key)
        cert, key = shown if guard.tls.ca else ("", "")
        # Who has the agent's own certificate at hand needs nobody to vouch for it.
        trust = Trust(guard.tls.cert, cert, key)
    host = _EVERYWHERE.get(address.host, address.host)
    scheme = ("http" if is_http else "grpc") + ("s" if trust else "")
    target = Target(
        url="",
        is_http=is_http,
        host=host,
        port=int(address.target.rpartition(":")[2]) if host else 0,
        path="" if host else address.target.removeprefix("unix://"),
        trust=trust,
        pinned=True,
        token=guard.token,
        signer=signer_of(guard.signing_key_file) if guard.signing_key_file and not missing else None,
        # Over HTTP nobody tells which loops there are.
        loop_id=args.loop or (next(iter(list_loop_ids(repo)), "") if is_http else ""),
    )
    target = target._replace(url=f"{scheme}://{target.address}" if host else address.target)
    steps = steps_for(target, args.timeout)
    steps.take("exposure", lambda: check_open(address, guard, "--http" if is_http else "--grpc"))
    if not address.target.endswith(":0"):  # any port: nobody knows which
        Listening(target, steps, expected=args.running, missing=missing).run()
    return steps.found


def _show(steps: list[Step], output: str | None) -> None:
    if (output or ("table" if sys.stdout.isatty() else "json")) == "json":
        sys.stdout.write(jsontext.encode(document_of(steps)).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines_of(steps)))
    sys.stdout.flush()
