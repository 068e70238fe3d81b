"""What `control` refuses before anything is written or run (contract E.4, K)."""

from pathlib import Path

import pytest

from tests.harness.loops import Repo
from tests.unit.cli.conftest import Call

PLACE = ("--loop", "alpha")
CANCEL = ("--intent", "cancel")


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        ((), "--intent"),
        (("--intent", "pause"), "cancel, approve, reject"),
        ((*CANCEL, "--transport", "sprite_service"), "--service-base-url"),
        ((*CANCEL, "--transport", "ssh"), "--transport"),
        ((*CANCEL, "--timeout-seconds", "x"), "--timeout-seconds"),
        ((*CANCEL, "--timeout-seconds", "3601"), "--timeout-seconds"),
        ((*CANCEL, "--interval-seconds", "-1"), "--interval-seconds"),
        ((*CANCEL, "--interval-seconds", "3601"), "--interval-seconds"),
        ((*CANCEL, "--retry-attempts", "0"), "--retry-attempts"),
        ((*CANCEL, "--retry-backoff-seconds", "soon"), "--retry-backoff-seconds"),
        ((*CANCEL, "--runtime-timeout-seconds", "0"), "--runtime-timeout-seconds"),
        ((*CANCEL, "--by", "a" * 257), "--by"),
        ((*CANCEL, "--note", "n" * 4097), "[note_too_long]"),
        ((*CANCEL, "--note", "bell \a"), "[control_characters]"),
        ((*CANCEL, "--idempotency-key", "k" * 129), "--idempotency-key"),
        ((*CANCEL, "--trace-id", "t" * 129), "--trace-id"),
        ((*CANCEL, "--expect-run-id", "r\n"), "--expect-run-id"),
        ((*CANCEL, "--expect-approval", "a\x7f"), "--expect-approval"),
        ((*CANCEL, "--loop", "../up"), "--loop"),
        (
            (
                *CANCEL,
                "--transport",
                "sprite_service",
                "--service-base-url",
                "grpc://h:1",
                "--runtime-command",
                "x",
            ),
            "--runtime-command",
        ),
    ],
)
def test_refused_arguments_name_their_flag_and_leave_nothing_behind(
    call: Call, repo: Repo, words: tuple[str, ...], mentions: str
) -> None:
    before = sorted(repo.root.rglob("*"))
    code, out, err = call("control", "--repo", str(repo.root), *PLACE, *words)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert mentions in err
    assert sorted(repo.root.rglob("*")) == before


def test_repository_that_is_not_there_is_refused(call: Call, tmp_path: Path) -> None:
    code, _, err = call("control", "--repo", str(tmp_path / "none"), *PLACE, *CANCEL)
    assert code == 1
    assert err.endswith("[repo_not_found]\n")
