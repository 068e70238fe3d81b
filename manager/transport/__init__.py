"""The ways to a loop. Each yields the same messages."""

from manager.transport.base import Endpoint, Retry, Transport, parse_base_url

__all__ = ["Endpoint", "Retry", "Transport", "open_transport", "parse_base_url"]


def open_transport(
    kind: str, *, repo: str, base_url: str = "", token: str = "", retry: Retry | None = None
) -> Transport:
    """The transport of a kind: "local" reads `repo`; "sprite_service" asks the agent at `base_url`.

    Raises OpsError `repo_not_found` or `invalid_request`. Nothing is connected yet.
    """
    if kind == "local":
        from manager.transport.local import LocalTransport

        return LocalTransport(repo)
    endpoint = parse_base_url(base_url, token)
    from manager.transport.grpc import GrpcTransport

    return GrpcTransport(endpoint, retry or Retry())
