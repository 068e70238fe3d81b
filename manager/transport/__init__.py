"""The ways to a loop. Each yields the same messages."""

from typing import TYPE_CHECKING

from manager.transport.base import (
    LOCAL,
    SPRITE_SERVICE,
    Controlled,
    Endpoint,
    Retry,
    Runtime,
    Transport,
    control_command,
    is_http_url,
    parse_base_url,
)

if TYPE_CHECKING:
    from spritemesh.endpoints import Trust
    from spritemesh.signer import Signer

__all__ = [
    "LOCAL",
    "SPRITE_SERVICE",
    "Controlled",
    "Endpoint",
    "Retry",
    "Runtime",
    "Transport",
    "control_command",
    "open_transport",
    "parse_base_url",
]


def open_transport(
    kind: str,
    *,
    repo: str,
    base_url: str = "",
    token: str = "",
    retry: Retry | None = None,
    runtime: Runtime | None = None,
    signer: "Signer | None" = None,
    trust: "Trust | None" = None,
) -> Transport:
    """The transport of a kind: "local" reads `repo`; "sprite_service" asks the agent or
    service at `base_url`.

    runtime: what a local control request runs. signer: of requests to an agent or service. trust: where there
    is TLS. Raises OpsError `repo_not_found` or `invalid_request`. Nothing is connected yet.
    """
    if kind == LOCAL:
        from manager.transport.local import LocalTransport

        return LocalTransport(repo, runtime, retry)
    endpoint = parse_base_url(base_url, token, trust=trust)._replace(signer=signer)
    if is_http_url(endpoint.target):
        from manager.transport.http import HttpTransport

        return HttpTransport(endpoint, retry or Retry())
    from manager.transport.grpc import GrpcTransport

    return GrpcTransport(endpoint, retry or Retry())
