"""Files of certificates: what is refused at the start, and what a running server makes of changes."""

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sprite_agent.certificates import Certificates
from sprite_agent.guard import Guard, TlsFiles, add_guard_flags, check_exposure, read_guard
from sprite_agent.http import handshakes
from sprite_agent.http.listener import Listener
from sprite_agent.limits import Limits
from sprite_agent.security import parse_address
from spritemesh import renewed
from spritemesh.commandline import Parser
from spritemesh.errors import OpsError
from tests.harness.descriptors import descriptors_left
from tests.harness.pki import Authority, Pair
from tests.harness.waiting import wait_for

_PLANTED = b"planted words that nobody may repeat\n"


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Pair:
    """A pair of the test's own."""
    return authority.server().copied(tmp_path)


def files(pair: Pair, ca: Path | None = None) -> TlsFiles:
    return TlsFiles(str(pair.cert), str(pair.key), str(ca) if ca else "")


def refusal(files: TlsFiles) -> OpsError:
    with pytest.raises(OpsError) as caught:
        Certificates(files)
    assert caught.value.reason == "tls_files_invalid"
    assert "planted" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("flag", "data", "told"),
    [
        ("cert", None, "cannot be read: No such file or directory"),
        ("cert", b"", "holds no certificate in PEM"),
        ("cert", _PLANTED, "holds no certificate in PEM"),
        (
            "cert",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds a certificate that cannot be read",
        ),
        ("key", None, "cannot be read: No such file or directory"),
        ("key", _PLANTED, "holds no private key in PEM"),
        (
            "key",
            b"-----BEGIN PRIVATE KEY-----\nplanted\n-----END PRIVATE KEY-----\n",
            "cannot be used",
        ),
        ("ca", None, "cannot be read: No such file or directory"),
        ("ca", _PLANTED, "holds no certificate in PEM"),
    ],
)
def test_file_that_cannot_be_used_is_named_with_its_flag(
    authority: Authority, pair: Pair, tmp_path: Path, flag: str, data: bytes | None, told: str
) -> None:
    bad = tmp_path / "bad.pem"
    if data is not None:
        bad.write_bytes(data)
    error = refusal(files(pair, authority.ca)._replace(**{flag: str(bad)}))
    assert error.field == f"--tls-{flag}"
    assert error.message.startswith(f"--tls-{flag} {bad} {told}")


def test_certificate_that_is_cut_off_is_refused(pair: Pair) -> None:
    pair.cert.write_bytes(pair.cert.read_bytes() * 2)
    pair.cert.write_bytes(pair.cert.read_bytes()[:-100])
    assert refusal(files(pair)).message == f"--tls-cert {pair.cert} holds a certificate that is cut off"


def test_key_of_another_certificate_is_refused(authority: Authority, pair: Pair) -> None:
    other = authority.pair("other", dns=("other.test",))
    error = refusal(files(pair._replace(key=other.key)))
    assert error.message == f"--tls-key {other.key} is not the key of --tls-cert {pair.cert}"


def test_key_with_a_passphrase_is_refused_instead_of_asking_for_it(pair: Pair) -> None:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        secret = serialization.BestAvailableEncryption(b"planted")
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))
        assert "needs a passphrase" in refusal(files(pair)).message


def test_key_that_every_user_may_read_is_warned_of(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    pair.key.chmod(0o640)
    Certificates(files(pair))
    assert caplog.messages == []
    pair.key.chmod(0o644)
    Certificates(files(pair))
    assert caplog.messages == [f"--tls-key {pair.key}: every user of this host may read it (chmod o-rwx)"]


def test_files_that_stay_are_read_once(pair: Pair) -> None:
    certificates = Certificates(files(pair))
    os.utime(pair.cert, (1, 1))
    os.utime(pair.key, (1, 1))
    first = certificates.current()
    assert certificates.current() is first
    pair.key.touch()  # the same again
    assert certificates.current() is first


def test_pair_is_taken_once_both_files_are_there(
    authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    certificates = Certificates(files(pair))
    first = certificates.current()
    fresh = authority.server("fresh")
    pair.cert.write_bytes(fresh.cert.read_bytes())
    for _ in range(3):
        assert certificates.current() is first
    (told,) = caplog.messages
    assert told.startswith(f"tls_files_invalid: --tls-key {pair.key} is not the key of --tls-cert")
    assert told.endswith("the files before stay in force")
    pair.key.write_bytes(fresh.key.read_bytes())
    assert certificates.current().found.cert == fresh.cert.read_bytes()
    assert caplog.messages[1:] == [f"--tls-cert {pair.cert} and the files beside it were read anew"]


def test_files_that_are_gone_for_a_while_change_nothing(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    certificates = Certificates(files(pair))
    first = certificates.current()
    hidden = pair.cert.rename(pair.cert.with_suffix(".hidden"))
    assert certificates.current() is first
    hidden.rename(pair.cert)
    assert certificates.current() is first
    assert len(caplog.messages) == 1


def test_renewal_that_came_without_a_free_descriptor_is_made_up_for(
    authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewed, "RETRY_SECONDS", 0.05)
    certificates = Certificates(files(pair))
    first = certificates.current()
    fresh = authority.server("fresh")
    pair.replace_by(fresh)
    with descriptors_left(1):  # to read with; a pair takes two
        ends = time.monotonic() + 0.1
        while time.monotonic() < ends:
            assert certificates.current() is first
    wait_for(lambda: certificates.current().found.cert == fresh.cert.read_bytes())
    assert len(caplog.messages) == 1


def test_link_that_is_moved_to_other_files_is_followed(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes changes a Secret."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        authority.server(f"secret-{version}").copied(tmp_path / version)
    data = tmp_path / "..data"
    data.symlink_to("1")
    for name in ("cert", "key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    certificates = Certificates(TlsFiles(str(tmp_path / "cert"), str(tmp_path / "key")))
    fresh = tmp_path / "..fresh"
    fresh.symlink_to("2")
    fresh.replace(data)
    assert certificates.current().found.cert == (tmp_path / "2" / "cert").read_bytes()


def test_mutual_tls_needs_no_token_off_loopback(authority: Authority) -> None:
    pair = authority.server()
    everywhere = parse_address("0.0.0.0:0", field="--grpc")
    check_exposure(
        everywhere, Guard(tls=files(pair, authority.ca)), allow_unauthenticated=False, field="--grpc"
    )
    with pytest.raises(OpsError) as caught:
        check_exposure(everywhere, Guard(tls=files(pair)), allow_unauthenticated=True, field="--grpc")
    assert caught.value.reason == "insecure_bind_refused"


def test_tls_is_not_for_unix_sockets(authority: Authority) -> None:
    guard = Guard("token", tls=files(authority.server()))
    with pytest.raises(OpsError) as caught:
        check_exposure(
            parse_address("unix:///s", field="--grpc"), guard, allow_unauthenticated=False, field="--grpc"
        )
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--grpc")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--allow-read", "a"), "--allow-read needs --tls-ca"),
        (("--allow-control", "a", "--tls-cert", "c", "--tls-key", "k"), "--allow-control needs --tls-ca"),
        (("--tls-ca", "x"), "--tls-cert is required with --tls-ca"),
        (("--tls-cert", "x"), "--tls-key is required with --tls-cert"),
    ],
)
def test_flags_that_would_have_no_effect_are_refused(flags: tuple[str, ...], told: str) -> None:
    parser = Parser("agent", "")
    add_guard_flags(parser)
    with pytest.raises(OpsError) as caught:
        read_guard(parser.read(flags), "token")
    assert caught.value.message.startswith(told)


@asynccontextmanager
async def listening(authority: Authority, limits: Limits) -> AsyncIterator[tuple[str, int]]:
    """Where nobody comes in."""

    async def app(_scope: object, _receive: object, _send: object) -> None:
        raise AssertionError("somebody came in")

    address = parse_address("127.0.0.1:0", field="--http", unix=False)
    listener = Listener(app, address, limits, certificates=Certificates(files(authority.server())))
    await listener.start()
    try:
        host, _, port = listener.address.rpartition(":")
        yield host, int(port)
    finally:
        await listener.stop()


async def test_handshake_that_does_not_end_is_cut(authority: Authority) -> None:
    async with listening(authority, Limits()._replace(request_seconds=0.2)) as place:
        reader, writer = await asyncio.open_connection(*place)
        writer.write(b"\x16\x03\x01")  # a client's first words begin so
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_handshakes_under_way_are_bounded_in_number(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "MORE_CONNECTIONS", 2)
    async with listening(authority, Limits()._replace(http_connections=1)) as place:
        waiting = [await asyncio.open_connection(*place) for _ in range(3)]
        reader, one_more = await asyncio.open_connection(*place)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        # When one has ended, however it did, there is room for another.
        reader, writer = waiting.pop()
        writer.write(b"no handshake at all")
        with suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        context = ssl.create_default_context(cafile=authority.ca)
        _, secured = await asyncio.wait_for(asyncio.open_connection(*place, ssl=context), 5)
        for ended in (one_more, writer, secured, *(writer for _, writer in waiting)):
            ended.close()


@pytest.mark.parametrize(
    "flag",
    ["--tls-cert", "--tls-key", "--tls-ca", "--signing-key-file", "--allow-control", "--allow-read"],
)
def test_protection_is_not_switched_off_by_a_variable_that_nobody_set(flag: str) -> None:
    parser = Parser("serve", "")
    add_guard_flags(parser)
    with pytest.raises(OpsError) as caught:
        parser.read((flag, ""))
    assert (caught.value.reason, caught.value.field) == ("invalid_request", flag)
