"""`sprite-agent check` refuses what `serve` would refuse to start with."""

import datetime as dt
from pathlib import Path

import pytest

from sprite_agent.commands import check as command
from spritemesh.commandline import Parser
from spritemesh.errors import OpsError
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


def test_authorities_of_clients_are_judged_by_their_own_ends(
    repo: Repo, authority: Authority, tmp_path: Path, check: Doctor
) -> None:
    repo.loop("alpha", events(1, 3))
    words = ("--repo", str(repo.root), *NOWHERE, *authority.server().server_flags, "--tls-ca")
    ended, ending = authority.server("ended", expired=True), authority.server("ending", left=dt.timedelta(1))
    both = tmp_path / "both.pem"
    both.write_bytes(ended.cert.read_bytes() + authority.ca.read_bytes())
    for ca, reason, told in (
        (authority.ca, None, f"--tls-ca {authority.ca} good for 2 days"),
        (ended.cert, "tls_files_invalid", f"--tls-ca {ended.cert} has expired, 20"),
        (ending.cert, "certificate_expiring", f"--tls-ca {ending.cert} good for 24 hours"),
        (
            both,
            "certificate_expiring",
            f"--tls-ca {both} good for 2 days; of its 2 authorities 1 not: one has",
        ),
    ):
        found = check(*words, str(ca))
        assert found.troubles == ({("tls files", reason)} if reason else set())
        assert told in found.step("tls files")["detail"]
        assert ("tls files" in found.lost) is (reason == "tls_files_invalid")


def test_certificate_of_a_client_is_named_by_the_flag_that_it_came_from(
    repo: Repo, authority: Authority, check: Doctor
) -> None:
    repo.loop("alpha", events(1, 3))
    server, client = authority.server(), authority.server("client")
    words = ("--repo", str(repo.root), *NOWHERE, *server.server_flags, "--tls-ca", str(authority.ca))
    for flag, told in (
        (
            ("--client-cert", client.cert),
            f"--tls-key {server.key} is not the key of --client-cert {client.cert}",
        ),
        (
            ("--client-key", client.key),
            f"--client-key {client.key} is not the key of --tls-cert {server.cert}",
        ),
    ):
        found = check(*words, *map(str, flag))
        assert found.step("tls files")["detail"] == told


@pytest.mark.parametrize("flag", ["--client-cert", "--client-key"])
@pytest.mark.parametrize("with_tls", [False, True])
def test_certificate_that_nobody_would_be_shown_is_refused(
    repo: Repo, authority: Authority, flag: str, *, with_tls: bool
) -> None:
    server = authority.server()
    flags = server.server_flags if with_tls else ()
    parser = Parser("check", "")
    command.configure(parser)
    with pytest.raises(OpsError) as caught:
        command.run(parser.read(("--repo", str(repo.root), *NOWHERE, *flags, flag, str(server.cert))))
    assert (caught.value.reason, caught.value.field) == ("invalid_request", flag)
    assert caught.value.message == f"{flag} needs --tls-ca: without it no client shows a certificate"


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
