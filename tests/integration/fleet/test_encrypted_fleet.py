"""A manager and its agents over TLS: certificates change under both, and those who look need some, too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.agents import StartAgent
from tests.harness.live_fleet import Fleet, Manager, entry, recent, running_loop
from tests.harness.loops import Repo
from tests.harness.manager import run
from tests.harness.pki import Authority
from tests.harness.proxy import Proxy
from tests.harness.waiting import wait_for


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "manager")
    yield found
    found.close()


def encrypted_entry(loop_id: str, address: str, **tls: str) -> dict[str, Any]:
    registered = entry(loop_id, f"grpcs://{address}")
    registered["service"]["tls"] = tls
    return registered


def test_session_outlives_its_certificate(
    repo: Repo, start: StartAgent, fleet: Fleet, authority: Authority, tmp_path: Path
) -> None:
    """The authority of clients is exchanged; the manager's new certificate is of the new one."""
    loop = running_loop(repo, data=recent(1, 3))
    client = authority.pair("session", dns=("manager.test",)).copied(fleet.directory)
    believed = tmp_path / "believed.pem"
    believed.write_bytes(authority.ca.read_bytes())
    agent = start(*authority.server().server_flags, "--tls-ca", str(believed))
    with Proxy(agent.address) as proxy:
        # Beside the registry, or by their whole paths.
        tls = {"ca": str(authority.ca), "cert": client.cert.name, "key": client.key.name}
        fleet.register(encrypted_entry("alpha", proxy.address, **tls))
        fleet.start()
        fleet.wait_until_read("alpha", 3)
        other = Authority(tmp_path / "other")
        believed.write_bytes(other.ca.read_bytes())
        client.replace_by(other.pair("session", dns=("manager.test",)))
        proxy.cut()
        loop.append(recent(4, 6))
        fleet.wait_until_read("alpha", 6)
    assert "tls_failed" not in fleet.records("alpha")


def test_session_that_is_not_trusted_says_so(
    repo: Repo, start: StartAgent, fleet: Fleet, authority: Authority
) -> None:
    running_loop(repo, data=recent(1, 1))
    agent = start(*authority.server().server_flags, "--tls-ca", str(authority.ca))
    fleet.register(
        encrypted_entry("alpha", agent.address, ca=str(authority.ca)),
        encrypted_entry("beta", agent.address, ca=str(fleet.directory / "none.pem")),
    )
    manager = fleet.start()
    found = manager.wait_for("alpha", lambda view: view.connection.reason == "tls_failed")
    retry_seconds = found.connection.retry_at.seconds - found.connection.since.seconds
    assert retry_seconds > 25
    manager.wait_for("beta", lambda view: view.connection.reason == "tls_files_invalid")


def test_manager_shows_its_certificate_to_those_who_look(fleet: Fleet, authority: Authority) -> None:
    fleet.register(entry("alpha"))
    server, client = authority.server(), authority.pair("looker", dns=("looker.test",))
    flags = (*server.server_flags, "--tls-ca", str(authority.ca), "--metrics", "127.0.0.1:0")
    manager = fleet.start(*flags, "--allow-read", "looker.test")
    address = manager.ready["grpc"]
    wait_for((fleet.directory / "manager.json").exists, what="the manager's file")
    assert json.loads((fleet.directory / "manager.json").read_text())["listen"] == f"grpcs://{address}"
    trust = ("--tls-ca", str(authority.ca), "--tls-cert", str(client.cert), "--tls-key", str(client.key))
    for asked in (("--repo", str(fleet.root)), ("--manager", f"grpcs://{address}")):
        done = run("fleet", "status", *asked, *trust)
        assert [loop["loopId"] for loop in done.documents[0]["loops"]] == ["alpha"], done.err
    for flags, result in ((trust, "ok"), (trust[:2], "failed")):
        (report,) = run("doctor", "--repo", str(fleet.root), *flags, "--output", "json").documents
        (step,) = (step for step in report["steps"] if step["step"] == "manager")
        assert step["result"] == result, step
        assert step["reasonCode"] == (None if result == "ok" else "tls_failed")
    for words, told in (
        (["--manager", f"grpcs://{address}", *trust[:2]], "the server wants a certificate of this side"),
        (["--manager", address], "the server wants TLS"),
    ):
        refused = run("top", "--output", "json", *words).err
        assert told in refused
        assert "[tls_failed]" in refused
    nobody = authority.pair("nobody", dns=("nobody.test",))
    shown = ("--tls-ca", str(authority.ca), "--tls-cert", str(nobody.cert), "--tls-key", str(nobody.key))
    assert "[identity_not_allowed]" in run("fleet", "status", "--repo", str(fleet.root), *shown).err


def test_socket_of_the_user_needs_no_certificate(socket_path: Path, authority: Authority) -> None:
    """TLS is for scrapers then."""
    fleet = Fleet(socket_path.parent / "m")
    fleet.register(entry("alpha"))
    flags = (*authority.server().server_flags, "--tls-ca", str(authority.ca), "--metrics", "127.0.0.1:0")
    manager = Manager(("run", "--repo", str(fleet.root), *flags), fleet.root / "manager.txt")
    try:
        assert manager.ready["grpc"].startswith("unix:///")
        done = run("fleet", "status", "--repo", str(fleet.root))
        assert done.code == 0, done.err
    finally:
        manager.end()


def test_tls_for_nothing_is_refused(fleet: Fleet, authority: Authority) -> None:
    fleet.register(entry("alpha"))
    done = run("run", "--repo", str(fleet.root), "--output", "json", *authority.server().server_flags)
    assert "--tls-cert needs --listen or --metrics" in done.err
