"""manager.fleet.registry: the registry's file, its changes, and the way to each loop."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from manager.core.registry import Entry, Registry
from manager.fleet.registry import RegistryWatch, check, endpoint_of, read_registry, registry_path
from manager.transport import Endpoint
from spritemesh.errors import OpsError
from spritemesh.files import write_atomic
from spritemesh.signer import signer_of
from tests.harness.signing import FIRST, write_keys

REMOTE = Entry("alpha", transport="sprite_service", base_url="grpc://h:1", token_env="ALPHA_TOKEN")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = Path(registry_path(str(tmp_path)))
    path.parent.mkdir(parents=True)
    return path


def refusal(call: Any, *arguments: Any) -> OpsError:
    with pytest.raises(OpsError) as caught:
        call(*arguments)
    return caught.value


# --- the file -------------------------------------------------------------------------------------------


def test_registry_is_read_from_its_place_in_the_repository(path: Path) -> None:
    assert str(path).endswith("/.superloop/ops-manager/fleet/registry.v1.json")
    path.write_text('{"schemaVersion":"v1","loops":[{"loopId":"alpha"}]}')
    assert read_registry(str(path)) == Registry("default", (Entry("alpha"),))


def test_missing_registry_is_called_so_and_names_the_file(path: Path) -> None:
    error = refusal(read_registry, str(path))
    assert (error.reason, str(path) in error.message) == ("registry_missing", True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"[" * 1000 + b"]" * 1000, "is not valid JSON"),
        (b"null", "the registry must be an object, found null"),
        (b'{"schemaVersion":"v1","loops":[{"loopId":7}]}', "loops[0]: loopId must be a string, found number"),
    ],
)
def test_fault_of_a_registry_names_the_file(path: Path, content: bytes, told: str) -> None:
    path.write_bytes(content)
    error = refusal(read_registry, str(path))
    assert error.reason == "registry_invalid"
    assert error.message.startswith(f"fleet registry {path}: {told}")


def test_registry_that_cannot_be_read_says_why(path: Path) -> None:
    path.mkdir()
    error = refusal(read_registry, str(path))
    assert (error.reason, "Is a directory" in error.message) == ("registry_invalid", True)


# --- the way to a loop ----------------------------------------------------------------------------------


def test_token_is_that_of_the_variable_that_the_entry_names() -> None:
    environment = {"ALPHA_TOKEN": " secret\n", "OPS_MANAGER_SERVICE_TOKEN": "other"}
    assert endpoint_of(REMOTE, environment) == Endpoint("h:1", "secret")


def test_entry_that_names_no_variable_uses_that_of_commands_if_it_is_set() -> None:
    entry = REMOTE._replace(token_env="")
    assert endpoint_of(entry, {"OPS_MANAGER_SERVICE_TOKEN": "other"}) == Endpoint("h:1", "other")
    assert endpoint_of(entry, {}) == Endpoint("h:1", "")


def test_requests_are_signed_with_the_file_that_the_entry_names(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys", FIRST)
    entry = REMOTE._replace(signing_key_file=str(keys))
    endpoint = endpoint_of(entry, {"ALPHA_TOKEN": "secret"})
    assert endpoint is not None
    assert endpoint.signer is signer_of(str(keys), "service.signingKeyFile")


def test_file_without_a_key_names_entry_member_and_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("k1\n")
    entry = REMOTE._replace(signing_key_file=str(bad))
    error = refusal(check, Registry("f", (entry,)), {"ALPHA_TOKEN": "secret"})
    told = f"loop 'alpha': service.signingKeyFile {bad}, line 1: must be KEY_ID BASE64, found words: 1"
    assert (error.reason, error.message) == ("registry_invalid", told)


def test_local_loop_has_no_endpoint() -> None:
    assert endpoint_of(Entry("alpha"), {}) is None


@pytest.mark.parametrize("environment", [{}, {"ALPHA_TOKEN": ""}, {"ALPHA_TOKEN": " \n"}])
def test_missing_token_names_entry_and_variable(environment: dict[str, str]) -> None:
    error = refusal(check, Registry("f", (Entry("local"), REMOTE)), environment)
    assert error.reason == "missing_service_token_env"
    assert error.message.startswith("loop 'alpha': service.tokenEnv names ALPHA_TOKEN")


def test_token_that_no_header_can_carry_is_not_repeated() -> None:
    error = refusal(endpoint_of, REMOTE, {"ALPHA_TOKEN": "two words"})
    assert error.reason == "registry_invalid"
    assert "loop 'alpha': ALPHA_TOKEN" in error.message
    assert "words" not in error.message


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("url", ["h:1", "grpc://h", "http://name:secret@h:99999", "ftp://h"])
def test_address_that_is_none_names_the_entry(url: str, *, enabled: bool) -> None:
    entry = REMOTE._replace(base_url=url, enabled=enabled)
    error = refusal(check, Registry("f", (entry,)), {"ALPHA_TOKEN": "t"})
    assert (error.reason, error.field) == ("registry_invalid", "service.baseUrl")
    assert error.message.startswith("loop 'alpha': service.baseUrl ")
    assert "secret" not in error.message


def test_disabled_loop_needs_no_token() -> None:
    check(Registry("f", (REMOTE._replace(enabled=False),)), {})


# --- changes --------------------------------------------------------------------------------------------


def settled(watch: RegistryWatch) -> bool:
    """Whether the watch, asked until it has nothing to tell, told of a change."""
    told = watch.changed()
    while watch.changed():
        told = True
    return told


def test_registry_that_stays_as_it_is_is_not_told_of(path: Path) -> None:
    write_atomic(str(path), b"{}")
    watch = RegistryWatch(str(path))
    settled(watch)
    assert not watch.changed()


def test_every_way_to_change_a_registry_is_noticed(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"a")
    watch = RegistryWatch(str(path))
    settled(watch)
    path.write_bytes(b"b")  # the same size
    assert settled(watch)
    write_atomic(str(path), b"c")
    assert settled(watch)
    path.unlink()
    assert settled(watch)
    assert not watch.changed()
    # As a ConfigMap is mounted: a link to a link, of which the inner one is replaced.
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "registry").write_text(json.dumps(version))
    (tmp_path / "data").symlink_to("1")
    path.symlink_to(tmp_path / "data" / "registry")
    assert settled(watch)
    (tmp_path / "next").symlink_to("2")
    os.replace(tmp_path / "next", tmp_path / "data")
    assert settled(watch)
