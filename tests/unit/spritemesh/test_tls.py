"""The authorities that a system believes in, and pairs that cannot be loaded for now."""

from pathlib import Path

import pytest

from spritemesh.errors import OpsError
from spritemesh.tls import Origin, client_context, present, system_authorities
from tests.harness.descriptors import descriptors_left
from tests.harness.pki import Authority


def believed() -> int:
    """How many authorities there are."""
    context = client_context()
    context.load_verify_locations(cadata=system_authorities().decode())
    return context.cert_store_stats()["x509_ca"]


def test_they_may_be_in_one_file_or_in_a_directory_each_under_several_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Authority(tmp_path / name, name).ca.read_text() for name in ("first", "second", "third")]
    file, directory = tmp_path / "bundle.pem", tmp_path / "certs"
    file.write_text("of our house\n" + "".join(found))
    directory.mkdir()
    for number, text in enumerate(found):
        (directory / f"{number}.pem").write_text(text.strip())  # no newline behind it
    (directory / "0a1b2c3d.0").symlink_to("0.pem")
    (directory / "notes").write_text("none")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(directory))
    assert believed() == 3
    file.unlink()
    assert believed() == 3
    assert system_authorities().count(b"BEGIN") == 3


def test_a_system_without_any_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(OpsError) as caught:
        system_authorities()
    assert (caught.value.reason, "--tls-ca" in caught.value.message) == ("tls_files_invalid", True)


@pytest.mark.parametrize("left", [0, 1])
def test_pair_that_finds_no_free_descriptor_is_told_of_as_a_file(authority: Authority, left: int) -> None:
    pair, context = authority.server(), client_context()
    origins = Origin("--tls-cert", str(pair.cert)), Origin("--tls-key", str(pair.key))
    given = pair.cert.read_bytes(), pair.key.read_bytes()
    with descriptors_left(left), pytest.raises(OpsError) as caught:
        present(context, *given, *origins)
    assert (caught.value.reason, caught.value.field) == ("tls_files_invalid", "--tls-key")
    assert caught.value.message == f"--tls-key {pair.key} cannot be loaded: Too many open files"
