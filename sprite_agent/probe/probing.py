"""All steps towards one agent or service, in order."""

from typing import TYPE_CHECKING

from sprite_agent.probe.network import Route
from sprite_agent.probe.steps import Steps, skip
from sprite_agent.probe.target import Target

if TYPE_CHECKING:
    from sprite_agent.probe.tls import TlsClient

# All steps together have as long as so many of them.
_STEPS_OF_TIME = 4


def steps_for(target: Target, seconds: float) -> Steps:
    """An empty report on a target; seconds: of each step."""
    secrets = (target.token, f"Bearer {target.token}") if target.token else ()
    return Steps(target.url, seconds=seconds, whole=_STEPS_OF_TIME * seconds, secrets=secrets)


def probe(target: Target, steps: Steps) -> None:
    """Take every step towards the target; raises nothing."""
    route = Route(target, steps.patience)
    tls: TlsClient | None = None
    steps.take("resolve", route.resolve)
    steps.take("connect", route.connect, needs=("resolve",))
    # Late: each of these brings a library of its own.
    if target.trust is None:
        steps.take("tls", lambda: skip("the connection is not encrypted"), needs=("connect",))
    else:
        from sprite_agent.probe import tls as encrypted

        client = tls = encrypted.TlsClient(target)
        steps.take("tls", lambda: client.handshake(route.connection()), needs=("connect",))
    if target.is_http:
        from sprite_agent.probe.http_agent import HttpProbe
        from sprite_agent.probe.http_client import HttpClient

        HttpProbe(target, steps, HttpClient(target, route, tls, steps.patience)).run()
    else:
        from sprite_agent.probe.grpc_agent import GrpcProbe

        GrpcProbe(target, steps, route, tls).run()
