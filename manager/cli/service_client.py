"""`ops-manager service-client`: one HTTP request to a service, for scripts (contract D.5)."""

import argparse
from typing import TYPE_CHECKING

from manager.cli import output
from manager.cli.signing import add_signing_flag, read_signer
from manager.cli.tls import add_tls_flags, read_trust
from spritemesh.commandline import choice, digits, positive, refused
from spritemesh.endpoints import check_token
from spritemesh.errors import OpsError
from spritemesh.ids import validate_trace_id

if TYPE_CHECKING:
    from manager.transport.base import Endpoint
    from manager.transport.http_client import Answer, HttpClient

# A control request needs a few KiB, and no service reads much more.
_MAX_BODY_BYTES = 16 * 1024 * 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--method", required=True, type=choice("GET", "POST"), metavar="NAME", help="GET or POST (required)"
    )
    parser.add_argument(
        "--base-url",
        required=True,
        metavar="URL",
        help="address of the service, http:// or https:// (required)",
    )
    parser.add_argument(
        "--path", required=True, metavar="PATH", help="path behind it, with its query (required)"
    )
    parser.add_argument(
        "--token", metavar="TOKEN", help="token of the service (default: none, whatever the environment says)"
    )
    add_signing_flag(parser)
    add_tls_flags(parser)
    parser.add_argument("--trace-id", metavar="ID", help="sent as X-Trace-Id")
    parser.add_argument("--body-file", metavar="FILE", help="JSON to send; needed for POST")
    parser.add_argument(
        "--retry-attempts", type=positive, default=3, metavar="N", help="tries of a request (default 3)"
    )
    parser.add_argument(
        "--retry-backoff-seconds",
        type=digits,
        default=1,
        metavar="N",
        help="pause before try n + 1, n times this (default 1)",
    )
    parser.add_argument(
        "--connect-timeout-seconds",
        type=positive,
        default=5,
        metavar="N",
        help="until it connects (default 5)",
    )
    parser.add_argument(
        "--max-time-seconds", type=positive, default=30, metavar="N", help="of the whole answer (default 30)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the body of a 2xx answer as it came."""
    # Of the flag only (contract K): the address may be anybody's.
    token = (args.token or "").strip()
    check_token(token, "--token")
    trace_id = validate_trace_id(args.trace_id, field="--trace-id") if args.trace_id else None
    endpoint = _endpoint(args)
    _check_path(args.path)
    body = _read_body(args)
    endpoint = endpoint._replace(token=token, signer=read_signer(args))
    # Late: a refused command line should not wait for the client.
    from manager.transport.http_client import HttpClient, Timeouts

    seconds = float(args.max_time_seconds)
    timeouts = Timeouts(float(args.connect_timeout_seconds), silence=seconds, whole=seconds)
    client = HttpClient(endpoint, timeouts)
    try:
        answer = _tried(client, args, trace_id, body)
    finally:
        client.close()
    output.write(answer.body)
    return 0


def _tried(
    client: "HttpClient", args: argparse.Namespace, trace_id: str | None, body: bytes | None
) -> "Answer":
    """The 2xx answer, after as many tries as there are (contract D.5).

    A lost connection is tried again only where a repeat does no harm (L16). Raises OpsError.
    """
    from time import sleep

    from manager.transport.http_client import RETRIED_STATUSES, NoAnswer, error_of, failure_text

    attempt = 1
    while True:
        try:
            answer = client.request(args.method, args.path, trace_id=trace_id, body=body)
        except NoAnswer as lost:
            error, again = lost.error, args.method == "GET"
        else:
            if answer.ok:
                return answer
            reason = error_of(answer, has_token=client.has_token).reason
            error, again = OpsError(reason, failure_text(answer)), answer.status in RETRIED_STATUSES
        if not again or attempt >= args.retry_attempts:
            raise error
        sleep(args.retry_backoff_seconds * attempt)
        attempt += 1


def _endpoint(args: argparse.Namespace) -> "Endpoint":
    from manager.transport.base import is_http_url, parse_base_url

    url = args.base_url
    if not is_http_url(url):
        raise refused("--base-url", f"must begin with http:// or https://, not {url!r}")
    return parse_base_url(url, "", "--base-url", read_trust(args))


def _check_path(path: str) -> None:
    if (
        not path.startswith("/")
        or not path.isascii()
        or not path.isprintable()
        or set(path) & set(' "<>\\^`{|}#')
    ):
        raise refused("--path", f"must begin with / and be encoded as in a URL, not {path!r}")


def _read_body(args: argparse.Namespace) -> bytes | None:
    """The bytes of `--body-file`, for POST; a GET has none."""
    if args.method == "GET":
        return None
    if not args.body_file:
        raise refused("--body-file", "is required with --method POST")
    try:
        with open(args.body_file, "rb") as file:
            body = file.read(_MAX_BODY_BYTES + 1)
    except OSError as error:
        raise refused("--body-file", f"cannot be read: {args.body_file}: {error.strerror}") from error
    if len(body) > _MAX_BODY_BYTES:
        raise refused("--body-file", f"holds more than {_MAX_BODY_BYTES} bytes: {args.body_file}")
    return body
