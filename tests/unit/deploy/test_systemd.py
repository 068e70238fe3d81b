"""The units of deploy/systemd: what systemd and the programs make of them."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sprite_agent.server import GRACE_SECONDS, REFUSE_SECONDS
from tests.harness.deploy import DEPLOY, parse

UNITS = DEPLOY / "systemd"
AGENT = "sprite-agent@.service"
MANAGER = "ops-manager.service"
ANALYZE = shutil.which("systemd-analyze")
# What systemd puts in. The values of variables are those of the unit itself.
SPECIFIERS = {"%f": "/srv/repository", "%i": "srv-repository", "%S": "/var/lib", "%d": "/run/credentials/u"}

Unit = dict[str, list[str]]


def unit(name: str) -> Unit:
    """The settings of a unit's [Service], each with its values in order."""
    settings: Unit = {}
    section = ""
    for line in (UNITS / name).read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def command_line(settings: Unit) -> list[str]:
    """The words of ExecStart as the program gets them."""
    (start,) = settings["ExecStart"]
    for name, value in (word.split("=", 1) for word in settings["Environment"]):
        start = start.replace(f"${{{name}}}", value)
    for specifier, value in SPECIFIERS.items():
        start = start.replace(specifier, value)
    assert "$" not in start
    assert "%" not in start
    program, *words = shlex.split(start)
    return [Path(program).name, *words]


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    paths = []
    for name, instance in ((AGENT, "sprite-agent@srv-repository.service"), (MANAGER, MANAGER)):
        text = (
            (UNITS / name).read_text("utf-8").replace("/opt/spritemesh/bin", str(Path(sys.executable).parent))
        )
        for written in {name, instance}:
            (tmp_path / written).write_text(text, encoding="utf-8")
        paths.append(str(tmp_path / instance))
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60, check=False
    )
    # It only warns of what it does not know. Faults of units of the machine are not ours.
    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line] == []
    assert done.returncode == 0, done.stderr


def test_the_agent_takes_the_command_line_of_its_unit() -> None:
    args = parse(command_line(unit(AGENT)))
    assert (args.repo, args.grpc, args.metrics) == ("/srv/repository", "127.0.0.1:50551", "127.0.0.1:9551")
    assert args.token_file == "/run/credentials/u/token"
    assert args.metrics_token_file == "/run/credentials/u/metrics-token"
    assert not args.allow_unauthenticated


def test_the_manager_takes_the_command_line_of_its_unit() -> None:
    args = parse(command_line(unit(MANAGER)))
    assert (args.repo, args.listen, args.metrics) == (
        "/var/lib/spritemesh",
        "127.0.0.1:50561",
        "127.0.0.1:9561",
    )
    assert args.token_file == "/run/credentials/u/token"
    assert args.metrics_token_file == "/run/credentials/u/metrics-token"


@pytest.mark.parametrize("name", [AGENT, MANAGER])
def test_every_credential_is_loaded_and_used(name: str) -> None:
    settings = unit(name)
    loaded = {value.partition(":")[0] for value in settings["LoadCredential"]}
    used = {
        word.removeprefix("/run/credentials/u/") for word in command_line(settings) if "credentials" in word
    }
    assert loaded == used


@pytest.mark.parametrize("name", [AGENT, MANAGER])
def test_nothing_but_its_own_directory_may_be_written(name: str) -> None:
    settings = unit(name)
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["NoNewPrivileges"] == ["yes"]
    assert settings["CapabilityBoundingSet"] == [""]
    assert settings["WorkingDirectory"][0] in settings["ReadWritePaths"][0].split()


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(("name", "most"), [(AGENT, 30), (MANAGER, 15)])
def test_systemd_counts_little_that_the_programs_could_reach(tmp_path: Path, name: str, most: int) -> None:
    path = tmp_path / name.replace("@", "@x")
    path.write_text((UNITS / name).read_text("utf-8"), encoding="utf-8")
    # Tenths of the ten points that a unit without any protection has.
    words = ["security", "--offline=true", "--no-pager", f"--threshold={most}", str(path)]
    done = subprocess.run([str(ANALYZE), *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [AGENT, MANAGER])
def test_the_programs_run_as_a_user_without_powers(name: str) -> None:
    settings = unit(name)
    assert settings["User"] not in (["root"], ["0"])
    assert settings["Group"] == settings["User"]
    assert settings["AmbientCapabilities"] == [""]
    families = {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}
    assert set(settings["RestrictAddressFamilies"][0].split()) == families
    assert settings["SystemCallFilter"][0] == "@system-service"
    for shut in (
        "PrivateDevices",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "LockPersonality",
        "RestrictRealtime",
        "RestrictSUIDSGID",
    ):
        assert settings[shut] == ["yes"]


def test_the_manager_has_a_place_and_a_view_of_its_own() -> None:
    settings = unit(MANAGER)
    assert (settings["UMask"], settings["StateDirectoryMode"]) == (["0077"], ["0700"])
    for shut in (
        "MemoryDenyWriteExecute",
        "PrivateIPC",
        "PrivateTmp",
        "PrivateUsers",
        "ProtectHome",
        "RestrictNamespaces",
    ):
        assert settings[shut] == ["yes"]


def test_no_unit_holds_a_secret() -> None:
    for name in (AGENT, MANAGER):
        settings = unit(name)
        assert all("TOKEN" not in value for value in settings["Environment"])
        assert "--token" not in [word.partition("=")[0] for word in command_line(settings)]


def test_an_agent_that_ends_leaves_its_commands_alone_and_has_time_to_drain() -> None:
    settings = unit(AGENT)
    assert settings["KillMode"] == ["process"]
    assert int(settings["TimeoutStopSec"][0]) > 2 * (GRACE_SECONDS + REFUSE_SECONDS)


def test_commands_of_the_agent_meet_the_runtime_in_its_own_surroundings() -> None:
    settings = unit(AGENT)
    assert settings["PrivateTmp"] == ["no"]
    assert "/tmp" in settings["ReadWritePaths"][0].split()
    # A runtime may make sandboxes of its own, and compile while it runs.
    assert not settings.keys() & {
        "RestrictNamespaces",
        "MemoryDenyWriteExecute",
        "ProtectHome",
        "PrivateUsers",
        # The agent's own files are private in any case; the runtime's are as its user wants.
        "UMask",
    }


def test_a_reload_is_a_hang_up() -> None:
    assert unit(MANAGER)["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
