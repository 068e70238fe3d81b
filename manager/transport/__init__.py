"""The ways to a loop. Each yields the same messages."""

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
) -> Transport:
    """The transport of a kind: "local" reads `repo`; "sprite_service" asks the agent or
    service at `base_url`.

    runtime: what a local control request runs. Raises OpsError `repo_not_found` or `invalid_request`.
    Nothing is connected yet.
    """
    if kind == LOCAL:
        from manager.transport.local import LocalTransport

        return LocalTransport(repo, runtime, retry)
    endpoint = parse_base_url(base_url, token)
    if is_http_url(endpoint.target):
        from manager.transport.http import HttpTransport

        return HttpTransport(endpoint, retry or Retry())
    from manager.transport.grpc import GrpcTransport

    return GrpcTransport(endpoint, retry or Retry())
