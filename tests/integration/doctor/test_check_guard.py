"""`sprite-agent check` refuses what `serve` would refuse to start with."""

import datetime as dt
from pathlib import Path

import pytest

from tests.harness.agents import TOKEN, StartAgent
from tests.harness.loops import Repo, events
from tests.harness.pki import Authority
from tests.harness.signing import FIRST, write_keys
from tests.integration.doctor.conftest import Doctor

NOWHERE = ("--grpc", "127.0.0.1:0", "--token", TOKEN, "--runtime-command", "true")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def test_files_for_tls_are_judged_as_by_the_server(repo: Repo, authority: Authority, check: Doctor) -> None:
    repo.loop("alpha", events(1, 3))
    server, other = authority.server(), authority.server("other")
    ended, ending = authority.server("ended", expired=True), authority.server("ending", left=dt.timedelta(1))
    cert, key = str(server.cert), str(server.key)
    for files, reason, told in (
        ((cert, key), None, f"--tls-cert {cert} good for 2 days"),
        (("/nowhere.pem", key), "tls_files_invalid", "--tls-cert /nowhere.pem cannot be read"),
        ((cert, str(other.key)), "tls_files_invalid", f"is not the key of --tls-cert {cert}"),
        ((str(ended.cert), str(ended.key)), "tls_files_invalid", f"--tls-cert {ended.cert} has expired, 20"),
        ((str(ending.cert), str(ending.key)), "certificate_expiring", "good for 24 hours"),
    ):
        found = check("--repo", str(repo.root), *NOWHERE, "--tls-cert", files[0], "--tls-key", files[1])
        assert found.troubles == ({("tls files", reason)} if reason else set())
        assert told in found.step("tls files")["detail"]
    keyless = check("--repo", str(repo.root), *NOWHERE, "--tls-cert", cert, "--tls-key", "/nowhere.key")
    assert keyless.ran.err.endswith("[tls_files_invalid]\n")
    client = ("--client-cert", str(ended.cert), "--client-key", str(ended.key))
    shown = check("--repo", str(repo.root), *NOWHERE, *server.server_flags, "--tls-ca", cert, *client)
    assert shown.lost == ["tls files"]
    assert f"--client-cert {ended.cert} has expired" in shown.step("tls files")["detail"]


def test_keys_that_cannot_be_used_are_told_while_an_agent_runs_on_older_ones(
    repo: Repo, start: StartAgent, tmp_path: Path, check: Doctor
) -> None:
    repo.loop("alpha", events(1, 3))
    keys = write_keys(tmp_path / "keys", FIRST)
    agent = start("--signing-key-file", str(keys))
    words = ("--repo", str(repo.root), "--grpc", agent.address, "--token", TOKEN, "--runtime-command", "true")
    flags = ("--signing-key-file", str(keys))
    assert check(*words, *flags).step("signing key")["detail"] == f"{keys}: first"
    keys.write_text("nonsense\n")
    found = check(*words, *flags)
    assert found.troubles == {("signing key", "signing_key_invalid")}
    assert found.step("listening")["result"] == "ok"
    assert found.step("health")["detail"] == "needs signing key"


def test_agent_on_older_certificates_is_told(
    repo: Repo, start: StartAgent, authority: Authority, check: Doctor
) -> None:
    repo.loop("alpha", events(1, 3))
    agent = start(*authority.server().server_flags)
    newer = authority.server("newer")
    words = ("--repo", str(repo.root), "--grpc", agent.address, "--token", TOKEN, "--runtime-command", "true")
    found = check(*words, *newer.server_flags)
    assert found.troubles == {("tls", "tls_failed")}
    assert f"another certificate than {newer.cert}: it runs on older files" in found.step("tls")["detail"]


def test_address_that_would_be_open_to_all_fails(repo: Repo, tmp_path: Path, check: Doctor) -> None:
    repo.loop("alpha", events(1, 3))
    words = ("--repo", str(repo.root), "--runtime-command", "true")
    everywhere = ("--grpc", "0.0.0.0:0", "--http", "[::]:0")
    found = check(*words, *everywhere)
    assert found.lost == ["exposure", "exposure"]
    assert found.troubles == {("exposure", "insecure_bind_refused")}
    keys = write_keys(tmp_path / "keys", FIRST)
    for flags in (("--token", TOKEN), ("--signing-key-file", str(keys))):
        assert check(*words, *everywhere, *flags).troubles == set()
    assert check(*words, "--grpc", "127.0.0.1:0").troubles == set()
