"""`ops-manager loop-run-snapshot`, from files and through an agent."""

from pathlib import Path
from typing import Any

import pytest

from tests.harness.agents import TOKEN, StartAgent
from tests.harness.loops import LoopFiles, Repo, events
from tests.harness.manager import Ran, run

WORDS = ("loop-run-snapshot", "--loop", "alpha")


def refused(done: Ran) -> str:
    """The error of a run that printed nothing else."""
    assert (done.code, done.out) == (1, "")
    assert "Traceback" not in done.err
    *_, last = done.err.splitlines()
    assert last.startswith("error: ")
    return last


@pytest.fixture
def flags(repo: Repo, loop: LoopFiles) -> tuple[str, ...]:
    loop.append(events(1, 3))
    loop.put("run-summary.json", {"entries": [{"run_id": "r", "iteration": 2.5, "completion_ok": True}]})
    return ("--repo", str(repo.root))


def test_both_ways_print_the_same_document(flags: tuple[str, ...], start: StartAgent) -> None:
    agent = ("--service-base-url", start().url, "--service-token", TOKEN)

    def document(*words: str) -> dict[str, Any]:
        done = run(*WORDS, *flags, *words)
        assert (done.code, done.err) == (0, "")
        (found,) = done.documents
        assert found.pop("emittedAt").endswith("Z")
        return found

    plain = document()
    assert (plain["run"]["runId"], plain["run"]["iteration"], plain["run"]["status"]) == (
        "r",
        2.5,
        "complete",
    )
    assert (plain["sequence"]["value"], plain["traceId"]) == (3, None)
    assert document(*agent) == plain
    named = ("--run-id", "other", "--trace-id", "t")
    assert document(*named) == document(*agent, *named)
    assert document(*named)["run"]["runId"] == "other"


def test_token_may_come_from_the_environment(flags: tuple[str, ...], start: StartAgent) -> None:
    words = (*WORDS, *flags, "--service-base-url", start().url)
    assert run(*words, OPS_MANAGER_SERVICE_TOKEN=TOKEN).code == 0
    assert "token" in refused(run(*words))
    assert "wrong-token" not in refused(run(*words, "--service-token", "wrong-token"))


def test_agent_on_a_unix_socket_is_asked(
    flags: tuple[str, ...], start: StartAgent, socket_path: Path
) -> None:
    agent = start(grpc_at=f"unix://{socket_path}")
    done = run(*WORDS, *flags, "--service-base-url", agent.url, "--service-token", TOKEN)
    assert (done.code, done.documents[0]["sequence"]["value"]) == (0, 3)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1", "127.0.0.1:1", "grpc://host"])
def test_address_that_is_none_is_refused_by_flag(flags: tuple[str, ...], url: str) -> None:
    assert "--service-base-url" in refused(run(*WORDS, *flags, "--service-base-url", url))


def test_token_that_no_header_can_carry_is_refused_by_flag(flags: tuple[str, ...]) -> None:
    words = ("--service-base-url", "grpc://127.0.0.1:1", "--service-token", "two words")
    assert "--service-token" in refused(run(*WORDS, *flags, *words))


def test_reading_writes_nothing(flags: tuple[str, ...], repo: Repo) -> None:
    before = sorted(path for path in repo.root.rglob("*"))
    assert run(*WORDS, *flags).code == 0
    assert sorted(path for path in repo.root.rglob("*")) == before
