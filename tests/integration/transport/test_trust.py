"""What a client makes of TLS: whom it believes, and what it says when no connection comes about."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from manager.fleet.retries import delay
from manager.transport import Retry, Transport, open_transport, parse_base_url
from manager.transport.link import Link
from spritemesh.endpoints import Trust
from spritemesh.errors import OpsError
from tests.harness.agents import TOKEN, Agent, StartAgent, start_agent
from tests.harness.control import Runtime
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.manager import run
from tests.harness.pki import Authority, Pair
from tests.harness.proxy import Proxy

KINDS = ("grpc", "http")


class Hosts(NamedTuple):
    """Agents: one with mutual TLS, one that shows a certificate of last year, and one that is plain."""

    mutual: Agent
    expired: Agent
    plain: Agent
    client: Pair

    def url(self, name: str, kind: str, *, encrypted: bool = True) -> str:
        agent: Agent = getattr(self, name)
        return f"{kind}{'s' if encrypted else ''}://{agent.ready[kind]}"


@pytest.fixture(scope="module")
def hosts(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    root = tmp_path_factory.mktemp("hosts")
    repo, runtime = Repo(root / "repo"), Runtime(root / "runtime")
    repo.loop("alpha", event(1))
    http = ("--http", "127.0.0.1:0", *runtime.flags)
    flags = (
        (*authority.server("host").server_flags, "--tls-ca", str(authority.ca)),
        authority.server("old", expired=True).server_flags,
        (),
    )
    agents = [start_agent(repo.root, root / "errors", *http, *words) for words in flags]
    mutual, expired, plain = agents
    yield Hosts(mutual, expired, plain, authority.pair("a-client", dns=("client.test",)))
    for agent in agents:
        agent.end()


@pytest.fixture
def trust(authority: Authority, hosts: Hosts) -> Trust:
    return Trust(str(authority.ca), str(hosts.client.cert), str(hosts.client.key))


def opened(url: str, trust: Trust | None) -> Transport:
    retry = Retry(attempts=3, backoff_seconds=0.01)
    return open_transport("sprite_service", repo="/", base_url=url, token=TOKEN, retry=retry, trust=trust)


def failure(url: str, trust: Trust | None) -> OpsError:
    transport = opened(url, trust)
    try:
        with pytest.raises(OpsError) as caught:
            transport.snapshot("alpha")
    finally:
        transport.close()
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
def test_believed_server_is_read(hosts: Hosts, trust: Trust, kind: str) -> None:
    for found in (trust, trust._replace(server_name="sprite.test")):
        transport = opened(hosts.url("mutual", kind), found)
        assert transport.snapshot("alpha").sequence_value == 1
        transport.close()


Change = Callable[[Trust, Authority, Path], Trust | None]


def with_pair(trust: Trust, pair: Pair) -> Trust:
    return trust._replace(cert=str(pair.cert), key=str(pair.key))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("host", "change", "told"),
    [
        ("mutual", lambda *_: None, "of no authority of this system; see --tls-ca"),
        (
            "mutual",
            lambda trust, _, path: trust._replace(ca=str(Authority(path).ca)),
            "the server's certificate is of no authority in ",
        ),
        (
            "mutual",
            lambda trust, *_: trust._replace(server_name="other.test"),
            "the server's certificate is not for other.test; see --tls-server-name",
        ),
        ("expired", lambda trust, *_: trust, "the server's certificate has expired"),
        (
            "mutual",
            lambda trust, *_: trust._replace(cert="", key=""),
            "the server wants a certificate of this side: give --tls-cert and --tls-key",
        ),
        (
            "mutual",
            lambda trust, authority, _: with_pair(
                trust, authority.pair("a-past", dns=("client.test",), expired=True)
            ),
            ("the server does not believe --tls-cert", "the server says that this side's certificate has"),
        ),
        (
            "mutual",
            lambda trust, _, path: with_pair(trust, Authority(path).pair("c", dns=("client.test",))),
            ("the server does not believe --tls-cert", "is of no authority that it knows"),
        ),
        ("plain", lambda trust, *_: trust, "the server speaks no TLS: its address is grpc:// or http://"),
    ],
    ids=["system", "unknown", "name", "expired", "none", "client expired", "client unknown", "plain"],
)
def test_connection_that_is_not_trusted_says_why(
    hosts: Hosts,
    trust: Trust,
    authority: Authority,
    tmp_path: Path,
    kind: str,
    host: str,
    change: Change,
    told: str | tuple[str, str],
) -> None:
    error = failure(hosts.url(host, kind), change(trust, authority, tmp_path / "other"))
    assert error.reason == "tls_failed"
    assert (told if isinstance(told, str) else told[KINDS.index(kind)]) in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_plain_client_is_told_that_the_server_wants_tls(hosts: Hosts, kind: str) -> None:
    error = failure(hosts.url("mutual", kind, encrypted=False), None)
    assert error.reason == "tls_failed"
    assert "the server wants TLS: its address is grpcs:// or https://" in error.message


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_is_no_matter_of_trust(trust: Trust, kind: str) -> None:
    assert failure(f"{kind}s://127.0.0.1:1", trust).reason == "agent_unreachable"


def failed_once(url: str) -> OpsError:
    transport = open_transport("sprite_service", repo="/", base_url=url, retry=Retry(attempts=1))
    try:
        with pytest.raises(OpsError) as caught:
            transport.snapshot("alpha")
    finally:
        transport.close()
    return caught.value


def test_server_that_hangs_up_is_no_matter_of_trust() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            for _ in range(2):  # it is asked, and asked for the reason
                listening.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        port = listening.getsockname()[1]
        assert failed_once(f"http://127.0.0.1:{port}").reason == "agent_unreachable"
        thread.join(10)
        assert not thread.is_alive()


def test_session_learns_why_and_knocks_seldom(hosts: Hosts, trust: Trust) -> None:
    async def ask() -> OpsError:
        link = Link(parse_base_url(hosts.url("mutual", "grpc"), TOKEN, trust=trust._replace(cert="", key="")))
        try:
            await link.snapshot("alpha", trace_id=None)
        except OpsError as error:
            return error
        finally:
            await link.close()
        raise AssertionError("it was let in")

    error = asyncio.run(ask())
    assert (error.reason, delay(error, 1, 0.1) >= 30) == ("tls_failed", True)


@pytest.mark.parametrize("kind", KINDS)
def test_follower_comes_back_with_new_certificates(
    start: StartAgent, loop: LoopFiles, authority: Authority, tmp_path: Path, kind: str
) -> None:
    loop.append(event(1))
    believed = tmp_path / "believed.pem"
    believed.write_bytes(authority.ca.read_bytes())
    server = (*authority.server().server_flags, "--tls-ca", str(believed), "--http", "127.0.0.1:0")
    agent = start(*server)
    client = authority.pair("follower", dns=("f.test",)).copied(tmp_path)
    trust = Trust(str(authority.ca), str(client.cert), str(client.key))
    with Proxy(agent.ready[kind]) as proxy:
        transport = opened(f"{kind}s://{proxy.address}", trust)
        lines = (
            message.batch.last_line
            for message in transport.events("alpha", None, follow=True)
            if message.WhichOneof("payload") == "batch"
        )
        assert next(lines) == 1
        other = Authority(tmp_path / "other")
        client.replace_by(other.pair("follower", dns=("f.test",)))
        believed.write_bytes(other.ca.read_bytes())
        proxy.cut()
        loop.append(event(2))
        assert next(lines) == 2
        transport.close()


# --- flags ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_commands_take_files_and_rows_show_the_address(
    hosts: Hosts, trust: Trust, tmp_path: Path, kind: str
) -> None:
    repo, url = Repo(tmp_path / "manager"), hosts.url("mutual", kind)
    flags = ("--tls-ca", trust.ca, "--tls-cert", trust.cert, "--tls-key", trust.key)
    service = ("--repo", str(repo.root), "--service-base-url", url, "--service-token", TOKEN, *flags)
    assert run("loop-run-snapshot", "--loop", "alpha", *service).code == 0
    done = run(
        *("control", "--loop", "alpha", "--intent", "cancel", "--no-confirm", "--by", "ana"),
        *("--transport", "sprite_service", *service),
    )
    assert done.code == 0, done.err
    assert done.documents[0]["command"] == f"POST {url}/ops/control"
    if kind == "http":
        asked = run("service-client", "--method", "GET", "--base-url", url, "--path", "/healthz", *flags)
        assert "[token_missing]" in asked.err


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:1", "http://127.0.0.1:1", "unix:///s"])
def test_trust_without_tls_is_refused(url: str, trust: Trust) -> None:
    with pytest.raises(OpsError) as caught:
        parse_base_url(url, TOKEN, trust=trust)
    assert caught.value.message == "--service-base-url must be grpcs:// or https:// for TLS"


def test_certificate_without_its_key_is_refused(trust: Trust) -> None:
    with pytest.raises(OpsError) as caught:
        parse_base_url("grpcs://127.0.0.1:1", TOKEN, trust=trust._replace(key=""))
    assert caught.value.message == "--tls-key is required with --tls-cert"


@pytest.mark.parametrize("kind", KINDS)
def test_file_that_cannot_be_used_is_named(trust: Trust, tmp_path: Path, kind: str) -> None:
    bad = tmp_path / "bad"
    bad.write_text("planted")
    for part in ("ca", "cert", "key"):
        error = failed_opening(f"{kind}s://127.0.0.1:1", trust._replace(**{part: str(bad)}))
        assert error.reason == "tls_files_invalid"
        assert error.message.startswith(f"--tls-{part} {bad} holds no ")
        assert "planted" not in error.message


def failed_opening(url: str, trust: Trust) -> OpsError:
    with pytest.raises(OpsError) as caught:
        opened(url, trust)
    return caught.value


# --- fleets ---------------------------------------------------------------------------------------------


def test_registry_names_files_beside_itself(tmp_path: Path) -> None:
    from manager.fleet.registry import endpoint_of, read_registry

    tls = {"ca": "ca.pem", "cert": "/etc/client.pem", "key": "sub/client.key", "serverName": "sprite.test"}
    service = {"baseUrl": "grpcs://sprite:50551", "tls": tls}
    entry = {"loopId": "alpha", "transport": "sprite_service", "service": service}
    path = tmp_path / "registry.json"
    path.write_text(json.dumps({"schemaVersion": "v1", "loops": [entry]}))
    (found,) = read_registry(str(path)).loops
    endpoint = endpoint_of(found, {})
    assert endpoint is not None
    assert endpoint.trust == Trust(
        f"{tmp_path}/ca.pem",
        "/etc/client.pem",
        f"{tmp_path}/sub/client.key",
        "sprite.test",
        member="service.tls",
    )
    assert endpoint.url == "grpcs://sprite:50551"
