"""`ops-manager doctor`: look at the way to one agent, a whole fleet, or a local repository, step by step."""

import argparse
from typing import TYPE_CHECKING

from manager.cli.catalog import alert_catalog_path
from manager.cli.output import add_output_flags, emit
from manager.cli.signing import read_signer
from manager.cli.source import add_source_flags, read_token
from manager.cli.tls import read_trust
from sprite_agent.probe.flags import add_timeout_flag
from spritemesh.commandline import refused
from spritemesh.ids import validate_loop_id
from spritemesh.program import fail

if TYPE_CHECKING:
    from manager.doctor.subjects import Work

_DEFAULT_SECONDS = 5.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--repo",
        metavar="DIR",
        help="repository with the manager's files: every enabled loop of its registry is looked at, or, where"
        " there is no registry, its local loops",
    )
    parser.add_argument(
        "--registry", metavar="FILE", help="registry of the fleet (default: that of the repository)"
    )
    parser.add_argument("--loop", metavar="ID", help="only this loop")
    add_source_flags(parser)
    add_timeout_flag(parser, _DEFAULT_SECONDS)
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was found; 1 when a step failed."""
    works = _works(args)
    # Late: a refused command line needs none of these.
    from manager.doctor.agents import examine_all
    from manager.render_doctor import report
    from sprite_agent.probe.report import document_of, failure_of

    steps = examine_all(works)
    emit(document_of(steps), pretty=args.pretty, output=args.output, table=lambda _document: report(steps))
    failure = failure_of(steps)
    return 0 if failure is None else fail(*failure)


def _works(args: argparse.Namespace) -> "list[Work]":
    """What the flags name. Raises OpsError for flags that name nothing."""
    loop_id = validate_loop_id(args.loop, field="--loop") if args.loop else ""
    if not (args.repo or args.service_base_url):
        raise refused("--repo", "or --service-base-url is required")
    if args.registry and (args.service_base_url or not args.repo):
        raise refused("--registry", "needs --repo, and excludes --service-base-url")
    from manager.doctor.files import Proof
    from manager.doctor.subjects import of_address, of_repository
    from manager.transport.base import parse_base_url
    from sprite_agent.runtime.layout import resolve_repo

    repo = resolve_repo(args.repo) if args.repo else ""
    if not args.service_base_url:
        catalog = alert_catalog_path(None)
        proof = Proof(read_trust(args), read_signer(args))
        return of_repository(
            repo, args.registry or "", loop_id, catalog=catalog, proof=proof, seconds=args.timeout
        )
    token = read_token(args.service_token)
    endpoint = parse_base_url(args.service_base_url, token, trust=read_trust(args))
    endpoint = endpoint._replace(signer=read_signer(args))
    return of_address(endpoint, repo, loop_id, seconds=args.timeout)
