"""A manager whose sessions sign to agents, and that wants signatures itself; keys change under both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.agents import StartAgent
from tests.harness.live_fleet import Fleet, entry, recent, running_loop
from tests.harness.loops import Repo
from tests.harness.manager import run
from tests.harness.proxy import Proxy
from tests.harness.signing import FIRST, SECOND, write_keys


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    found = Fleet(tmp_path / "manager")
    yield found
    found.close()


def test_session_outlives_its_key(repo: Repo, start: StartAgent, fleet: Fleet, tmp_path: Path) -> None:
    loop = running_loop(repo, data=recent(1, 3))
    server, client = write_keys(tmp_path / "server", FIRST), write_keys(tmp_path / "client", FIRST)
    agent = start("--signing-key-file", str(server))
    with Proxy(agent.address) as proxy:
        registered = entry("alpha", proxy.url)
        registered["service"]["signingKeyFile"] = str(client)
        fleet.register(registered)
        fleet.start()
        fleet.wait_until_read("alpha", 3)
        write_keys(server, FIRST, SECOND)
        write_keys(client, SECOND, FIRST)
        write_keys(server, SECOND)
        proxy.cut()
        loop.append(recent(4, 6))
        fleet.wait_until_read("alpha", 6)
    assert "signature_wrong" not in fleet.records("alpha")


def test_manager_wants_signatures_of_those_who_look(fleet: Fleet, tmp_path: Path) -> None:
    fleet.register(entry("alpha"))
    keys = write_keys(tmp_path / "keys", FIRST)
    address = fleet.start("--signing-key-file", str(keys)).ready["grpc"]
    for words in (("fleet", "status"), ("top", "--output", "json")):
        asked = (*words, "--manager", address)
        assert "[signature_missing]" in run(*asked).err
        signed = run(*asked, "--signing-key-file", str(keys))
        assert [loop["loopId"] for loop in signed.documents[0]["loops"]] == ["alpha"], signed.err
