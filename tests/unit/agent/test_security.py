"""Tokens and addresses."""

from pathlib import Path
from types import ModuleType

import pytest

from manager.cli.source import read_token as read_token_of_manager
from manager.transport import parse_base_url
from sprite_agent.commands import check, serve
from sprite_agent.guard import Guard, check_exposure
from sprite_agent.security import TokenCheck, parse_address, read_metrics_token, read_token
from spritemesh.commandline import Parser
from spritemesh.errors import OpsError
from spritemesh.names import SERVICE_TOKEN_VARIABLE


def refusal(*metadata: tuple[str, str | bytes], token: str = "right") -> str | None:
    error = TokenCheck(token).refusal(metadata)
    return None if error is None else error.reason


@pytest.mark.parametrize(
    "metadata",
    [
        ("authorization", "Bearer right"),
        ("authorization", "bearer right"),
        ("authorization", " Bearer   right "),
        ("x-ops-token", "right"),
        ("x-ops-token", " right "),
    ],
)
def test_right_token_is_let_in_by_either_header(metadata: tuple[str, str]) -> None:
    assert refusal(metadata) is None


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (("authorization", "Bearer wrong"), "token_wrong"),
        (("authorization", "Bearer"), "token_wrong"),
        (("authorization", "Bearer "), "token_wrong"),
        (("authorization", "Basic right"), "token_missing"),
        (("authorization", "right"), "token_missing"),
        (("authorization", ""), "token_missing"),
        (("x-ops-token", ""), "token_wrong"),
        (("x-ops-token", "righ"), "token_wrong"),
        (("x-ops-token", "rightt"), "token_wrong"),
        (("x-ops-token", "Right"), "token_wrong"),
        (("x-ops-token", "r\u00efght"), "token_wrong"),
        (("x-ops-token", b"\xff"), "token_wrong"),
        (("x-other", "right"), "token_missing"),
    ],
)
def test_anything_else_is_refused(metadata: tuple[str, str | bytes], reason: str) -> None:
    assert refusal(metadata) == reason


def test_one_right_token_among_several_is_enough() -> None:
    assert refusal(("authorization", "Bearer wrong"), ("x-ops-token", "right")) is None
    assert refusal(("x-ops-token", "right"), ("x-ops-token", "wrong")) is None


def test_many_tokens_in_one_call_are_guesses() -> None:
    guesses = [("x-ops-token", f"guess-{number}") for number in range(4)]
    assert refusal(*guesses[1:], ("x-ops-token", "right")) is None
    assert refusal(*guesses, ("x-ops-token", "right")) == "token_wrong"


def test_no_metadata_is_a_missing_token() -> None:
    assert refusal() == "token_missing"


def test_agent_without_token_lets_everybody_in() -> None:
    assert TokenCheck("").is_open
    assert refusal(token="") is None
    assert refusal(("authorization", "Bearer x"), token="") is None


def test_refusal_never_repeats_a_token() -> None:
    error = TokenCheck("right-secret").refusal([("x-ops-token", "wrong-secret")])
    assert error is not None
    assert "secret" not in error.message


def test_token_comes_from_flag_then_file_then_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    assert read_token("of-the-flag", str(file), "of-the-environment") == "of-the-flag"
    assert read_token(None, str(file), "of-the-environment") == "of-the-file"
    assert read_token(None, None, " of-the-environment\n") == "of-the-environment"
    assert read_token(None, None, None) == read_token(None, None, "") == ""


@pytest.mark.parametrize(
    "content", [b"", b" \n\t", b"two words", b"\xff", b"caf\xc3\xa9", b"a\x7f", b"x" * 5000]
)
def test_token_file_without_a_usable_token_is_refused_by_flag(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(OpsError) as caught:
        read_token(None, str(file), None)
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--token-file")


@pytest.mark.parametrize("command", [serve, check])
@pytest.mark.parametrize("flag", ["--token", "--token-file"])
def test_token_of_a_variable_that_nobody_set_is_refused(command: ModuleType, flag: str) -> None:
    """Where keys or certificates let the agent start without one, nobody would notice."""
    parser = Parser("agent", "")
    command.configure(parser)
    with pytest.raises(OpsError) as caught:
        parser.read(("--repo", ".", "--signing-key-file", "keys", flag, ""))
    assert (caught.value.reason, caught.value.field) == ("invalid_request", flag)


def test_scrapers_have_the_token_of_the_program_unless_they_have_a_file(tmp_path: Path) -> None:
    file = tmp_path / "scrapers"
    file.write_text("of-the-scrapers\n")
    assert read_metrics_token(str(file), "of-the-program") == "of-the-scrapers"
    assert read_metrics_token(None, "of-the-program") == "of-the-program"
    assert read_metrics_token(None, "") == ""
    file.write_text("\n")
    with pytest.raises(OpsError) as caught:
        read_metrics_token(str(file), "of-the-program")
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--metrics-token-file")


@pytest.mark.parametrize("name", ["missing", "."])
def test_token_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(OpsError) as caught:
        read_token(None, str(tmp_path / name), "of-the-environment")
    assert str(tmp_path / name) in caught.value.message


@pytest.mark.parametrize("token", ["", "  ", "a b", "é"])
def test_unusable_token_of_the_flag_is_refused(token: str) -> None:
    with pytest.raises(OpsError) as caught:
        read_token(token, None, "of-the-environment")
    assert caught.value.field == "--token"


@pytest.mark.parametrize(
    ("text", "target", "is_loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1:0", True),
        ("127.8.9.1:80", "127.8.9.1:80", True),
        ("localhost:50551", "localhost:50551", True),
        ("[::1]:1", "[::1]:1", True),
        ("0.0.0.0:1", "0.0.0.0:1", False),
        ("[::]:1", "[::]:1", False),
        ("10.0.0.1:1", "10.0.0.1:1", False),
        ("localhost.example:1", "localhost.example:1", False),
        ("unix:///run/agent.sock", "unix:///run/agent.sock", True),
    ],
)
def test_addresses_are_read(text: str, target: str, is_loopback: bool) -> None:
    address = parse_address(text, field="--grpc")
    assert (address.target, address.is_loopback) == (target, is_loopback)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        ":80",
        "host:",
        "host:x",
        "host:-1",
        "host:65536",
        "host:１",
        "host:" + "1" * 5000,
        "[::1]",
        "unix:",
        "unix:x",
        "unix:///",
    ],
)
def test_text_that_is_no_address_is_refused_by_flag(text: str) -> None:
    with pytest.raises(OpsError) as caught:
        parse_address(text, field="--grpc")
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--grpc")


@pytest.mark.parametrize(
    ("address", "token", "allowed", "reason"),
    [
        ("127.0.0.1:0", "t", False, None),
        ("0.0.0.0:0", "t", False, None),
        ("127.0.0.1:0", "", True, None),
        ("unix:///x", "", True, None),
        ("127.0.0.1:0", "", False, "token_not_configured"),
        ("0.0.0.0:0", "", False, "token_not_configured"),
        ("0.0.0.0:0", "", True, "insecure_bind_refused"),
        ("example.org:1", "", True, "insecure_bind_refused"),
    ],
)
def test_nobody_is_served_openly_by_accident(
    address: str, token: str, allowed: bool, reason: str | None
) -> None:
    def check() -> None:
        check_exposure(
            parse_address(address, field="--grpc"),
            Guard(token),
            allow_unauthenticated=allowed,
            field="--grpc",
        )

    if reason is None:
        check()
        return
    with pytest.raises(OpsError) as caught:
        check()
    assert caught.value.reason == reason


def test_refusals_name_the_variable_of_the_program_in_question() -> None:
    with pytest.raises(OpsError, match="OTHER_TOKEN") as caught:
        read_token(None, None, "two words", "OTHER_TOKEN")
    assert caught.value.field == "OTHER_TOKEN"
    address = parse_address("127.0.0.1:0", field="--listen")
    with pytest.raises(OpsError, match="OTHER_TOKEN"):
        check_exposure(
            address, Guard(), allow_unauthenticated=False, field="--listen", variable="OTHER_TOKEN"
        )


# --- the other side ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "variable"), [(" t\n", None), (None, "\tt \n"), ("", "t"), ("t", "other")])
def test_manager_takes_a_padded_token_as_the_agent_does(
    monkeypatch: pytest.MonkeyPatch, flag: str | None, variable: str | None
) -> None:
    monkeypatch.setenv(SERVICE_TOKEN_VARIABLE, variable or "")
    assert read_token_of_manager(flag) == read_token(flag or None, None, variable) == "t"


@pytest.mark.parametrize(
    ("flag", "variable", "origin"),
    [("two words", "good", "--service-token"), (None, "two words", SERVICE_TOKEN_VARIABLE)],
)
def test_manager_blames_the_place_that_its_token_came_from(
    monkeypatch: pytest.MonkeyPatch, flag: str | None, variable: str, origin: str
) -> None:
    monkeypatch.setenv(SERVICE_TOKEN_VARIABLE, variable)
    with pytest.raises(OpsError) as caught:
        read_token_of_manager(flag)
    assert (caught.value.reason, caught.value.field) == ("invalid_request", origin)
    assert caught.value.message.startswith(f"{origin}: ")


@pytest.mark.parametrize(
    "url", ["grpc://h:65536", "grpc://h:\uff11", "grpc://h:\u0661", "grpc://h:" + "1" * 5000, "unix:///"]
)
def test_manager_refuses_an_address_that_no_agent_can_have(url: str) -> None:
    with pytest.raises(OpsError) as caught:
        parse_base_url(url, "t")
    assert (caught.value.reason, caught.value.field) == ("invalid_request", "--service-base-url")


def test_manager_takes_the_last_port() -> None:
    assert parse_base_url("grpc://h:65535", "t").target == "h:65535"
