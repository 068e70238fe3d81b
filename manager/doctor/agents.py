"""Agents and services as the manager reaches them, step by step."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from manager.transport.base import Endpoint, is_http_url
from sprite_agent.probe.probing import probe, steps_for
from sprite_agent.probe.steps import Step
from sprite_agent.probe.target import Target
from spritemesh.endpoints import is_unix_address

# Asked at the same time: most of their time is waiting.
_AT_A_TIME = 16
_HTTP_PORTS = {"http": 80, "https": 443}


def target_of(endpoint: Endpoint, loop_id: str) -> Target:
    """What is to be probed. loop_id: the loop that matters, "" for any."""
    is_http = is_http_url(endpoint.target)
    host, port, path = "", 0, ""
    if is_unix_address(endpoint.target):
        path = endpoint.target.removeprefix("unix://")
    else:
        parts = urlsplit(endpoint.target if is_http else f"grpc://{endpoint.target}")
        host, port = parts.hostname or "", parts.port or _HTTP_PORTS.get(parts.scheme, 0)
        path = parts.path if is_http else ""
    return Target(
        url=endpoint.url,
        is_http=is_http,
        host=host,
        port=port,
        path=path,
        trust=endpoint.trust,
        token=endpoint.token,
        signer=endpoint.signer,
        loop_id=loop_id,
    )


def examine(endpoint: Endpoint, loop_id: str, *, seconds: float, subject: str = "") -> list[Step]:
    """All steps towards one endpoint; seconds: of each. subject: its name in the report, else the address."""
    target = target_of(endpoint, loop_id)
    steps = steps_for(target, seconds)
    steps.subject = subject or steps.subject
    probe(target, steps)
    return steps.found


def examine_all(works: Iterable[Callable[[], list[Step]]]) -> list[Step]:
    """The steps of all works, in their order, several done at a time."""
    with ThreadPoolExecutor(_AT_A_TIME, "doctor") as pool:
        return [step for found in pool.map(lambda work: work(), works) for step in found]
