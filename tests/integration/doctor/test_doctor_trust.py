"""Both commands where there is TLS, and where requests are signed."""

from pathlib import Path

import pytest

from tests.harness.agents import TOKEN, StartAgent
from tests.harness.clocks import Clock
from tests.harness.loops import Repo, events
from tests.harness.pki import Authority
from tests.harness.signing import FIRST, SECOND, write_keys
from tests.integration.doctor.conftest import Doctor

WITH_TOKEN = ("--service-token", TOKEN)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def test_encrypted_agent_is_well_and_its_certificate_is_told(
    repo: Repo, start: StartAgent, authority: Authority, tmp_path: Path, doctor: Doctor, check: Doctor
) -> None:
    repo.loop("alpha", events(1, 3))
    server = authority.server()
    agent = start("--http", "127.0.0.1:0", *server.server_flags)
    believed = ("--tls-ca", str(authority.ca), *WITH_TOKEN, "--loop", "alpha")
    for url in (f"grpcs://{agent.address}", f"https://{agent.ready['http']}"):
        found = doctor("--service-base-url", url, *believed)
        assert found.lost == []
        assert found.troubles == set()
        told = found.step("tls")["detail"]
        assert "names localhost, sprite.test" in told
        assert "issued by test authority; good for 2 days" in told
        assert found.step("stream")["result"] == "ok"

        stranger = Authority(tmp_path / "other", "another authority")
        unknown = doctor("--service-base-url", url, "--tls-ca", str(stranger.ca), *WITH_TOKEN)
        assert unknown.troubles == {("tls", "tls_failed")}
        assert f"of no authority in {stranger.ca}" in unknown.step("tls")["detail"]
        misnamed = doctor("--service-base-url", url, *believed, "--tls-server-name", "elsewhere.test")
        assert misnamed.troubles == {("tls", "tls_failed")}
        assert "elsewhere.test" in misnamed.step("tls")["detail"]
        missing = doctor("--service-base-url", url, "--tls-ca", "/nowhere.pem", *WITH_TOKEN)
        assert missing.troubles == {("tls", "tls_files_invalid")}

    for url in (f"grpc://{agent.address}", f"http://{agent.ready['http']}"):
        plain = doctor("--service-base-url", url, *WITH_TOKEN, "--timeout", "2")
        assert plain.troubles == {("health", "tls_failed")}
        assert "grpcs:// or https://" in plain.step("health")["detail"]
    place = (
        "--repo",
        str(repo.root),
        "--grpc",
        agent.address,
        "--http",
        agent.ready["http"],
        "--token",
        TOKEN,
    )
    inside = check(*place, *server.server_flags, "--running", "--runtime-command", "true")
    assert inside.lost == []
    assert inside.troubles == set()


def test_certificate_that_has_ended_is_told(start: StartAgent, authority: Authority, doctor: Doctor) -> None:
    agent = start(*authority.server(expired=True).server_flags)
    found = doctor(
        "--service-base-url", f"grpcs://{agent.address}", "--tls-ca", str(authority.ca), *WITH_TOKEN
    )
    assert found.troubles == {("tls", "tls_failed")}
    assert "certificate has expired" in found.step("tls")["detail"]


def test_client_certificate_that_is_wanted_is_told(
    repo: Repo, start: StartAgent, authority: Authority, doctor: Doctor, check: Doctor
) -> None:
    repo.loop("alpha", events(1, 3))
    server = authority.server()
    client = authority.pair("client", dns=("manager.test",))
    ended = authority.pair("ended", dns=("manager.test",), expired=True)
    flags = (*server.server_flags, "--tls-ca", str(authority.ca))
    agent = start("--http", "127.0.0.1:0", *flags, "--allow-read", "manager.test", token=())
    shown = ("--tls-cert", str(client.cert), "--tls-key", str(client.key))
    for url in (f"grpcs://{agent.address}", f"https://{agent.ready['http']}"):
        words = ("--service-base-url", url, "--tls-ca", str(authority.ca), "--loop", "alpha")
        found = doctor(*words, *shown)
        assert found.troubles == set()
        bare = doctor(*words)
        assert len(bare.lost) == 1
        assert {reason for _, reason in bare.troubles} == {"tls_failed"}
        assert "give --tls-cert and --tls-key" in bare.step(bare.lost[0])["detail"], bare.steps
        over = doctor(*words, "--tls-cert", str(ended.cert), "--tls-key", str(ended.key))
        assert {reason for _, reason in over.troubles} <= {"tls_failed", "certificate_expiring"}
        assert f"--tls-cert {ended.cert} has expired" in over.step(over.lost[0])["detail"]
    place = (
        "--repo",
        str(repo.root),
        "--grpc",
        agent.address,
        "--running",
        "--runtime-command",
        "true",
        *flags,
    )
    own = check(*place)
    assert ("loops", "identity_not_allowed") in own.troubles
    named = check(*place, "--client-cert", str(client.cert), "--client-key", str(client.key))
    assert named.troubles == set()


def test_signature_is_told_apart_from_token_and_clock(
    repo: Repo, start: StartAgent, tmp_path: Path, doctor: Doctor, check: Doctor
) -> None:
    repo.loop("alpha", events(1, 3))
    keys = write_keys(tmp_path / "keys", FIRST)
    others = write_keys(tmp_path / "others", SECOND)
    clock = Clock(tmp_path / "clock")
    agent = start("--http", "127.0.0.1:0", "--signing-key-file", str(keys), under=clock.under)
    for url in (agent.url, agent.http_url):
        words = ("--service-base-url", url, "--loop", "alpha", *WITH_TOKEN)
        signed = doctor(*words, "--signing-key-file", str(keys))
        assert signed.troubles == set()
        assert signed.step("signature")["result"] == signed.step("stream")["result"] == "ok"
        for flags, reason in (
            ((), "signature_missing"),
            (("--signing-key-file", str(others)), "signature_wrong"),
        ):
            refused = doctor(*words, *flags)
            assert refused.troubles == {("signature", reason)}
            assert refused.step("token")["result"] == "ok"
    place = (
        "--repo",
        str(repo.root),
        "--grpc",
        agent.address,
        "--http",
        agent.ready["http"],
        "--token",
        TOKEN,
    )
    inside = check(*place, "--signing-key-file", str(keys), "--runtime-command", "true", "--running")
    assert inside.troubles == set()
    clock.set(3600)
    late = doctor("--service-base-url", agent.url, *WITH_TOKEN, "--signing-key-file", str(keys))
    assert late.troubles == {("signature", "signature_expired"), ("clock", "clock_skew")}
    assert "the server's clock; 60 s are taken" in late.step("clock")["detail"]
