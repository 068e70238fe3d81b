"""Both commands that look, run as a user runs them, and their reports."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from sprite_agent.cli import main
from tests.harness.agents import environment
from tests.harness.manager import Ran, run


class Report(NamedTuple):
    """What a command told. steps: in order."""

    ran: Ran
    steps: list[dict[str, Any]]

    def step(self, name: str, *, within: str = "") -> dict[str, Any]:
        """The one step of this name in subjects whose name holds `within`."""
        found = [step for step in self.steps if step["step"] == name and within in step["subject"]]
        assert len(found) == 1, (name, self.steps)
        return found[0]

    def results(self, *, within: str = "") -> dict[str, str]:
        """Result by name, of the subjects whose names hold `within`."""
        return {step["step"]: step["result"] for step in self.steps if within in step["subject"]}

    @property
    def troubles(self) -> set[tuple[str, str]]:
        """Names and reasons of steps that warn or failed."""
        return {(step["step"], step["reasonCode"]) for step in self.steps if step["reasonCode"]}

    @property
    def lost(self) -> list[str]:
        """Names of steps that failed."""
        return [step["step"] for step in self.steps if step["result"] == "failed"]


def report_of(ran: Ran) -> Report:
    """The report in what a command printed, checked for what holds of all of them."""
    (document,) = ran.documents
    assert document["schemaVersion"] == "v1"
    steps = document["steps"]
    failed = [step for step in steps if step["result"] == "failed"]
    assert document["ok"] is not bool(failed)
    assert ran.code == bool(failed)
    for result, count in document["counts"].items():
        assert count == sum(step["result"] == result for step in steps)
    for step in steps:
        assert set(step) == {"subject", "step", "result", "reasonCode", "detail", "next"}
        assert bool(step["reasonCode"]) == (step["result"] in {"warning", "failed"})
        assert step["detail"]
        assert step["next"] or not step["reasonCode"]
    if failed:
        assert ran.err.endswith(f"[{failed[0]['reasonCode']}]\n")
        assert ran.err.count("\n") == 1
    return Report(ran, steps)


Doctor = Callable[..., Report]


@pytest.fixture
def doctor() -> Doctor:
    """Runs `ops-manager doctor`."""

    def look(*words: str, **variables: str) -> Report:
        return report_of(run("doctor", *words, "--output", "json", **variables))

    return look


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Runs `sprite-agent check`."""
    kept = environment()

    def look(*words: str, **variables: str) -> Report:
        with monkeypatch.context() as patch:
            patch.setattr("os.environ", {**kept, **variables})
            code = main(["check", *words, "--output", "json"])
        return report_of(Ran(code, *capsys.readouterr()))

    return look
