"""The golden cases: what v1 printed, returned and left on disk, recorded from its reference.

One file in golden/ is one case: a small repository (`inputs`), steps run on it in order, and what each
step gave. `<...>` in texts are placeholders (see matching.py). Contract sections 0 to J.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

GOLDEN = Path(__file__).parent / "golden"

# Steps that change files and run nothing.
FILE_STEPS = ("write", "append", "delete")


class Expected(NamedTuple):
    """What a step gave. `files`: path -> whole text of every file that it changed, None: removed."""

    exit_code: int | str
    stdout_format: str
    stdout: str
    stderr: str
    stderr_mentions: list[str]
    files: dict[str, str | None]


class Step(NamedTuple):
    """One step. `expected` is None for file steps and for HTTP requests."""

    command: str
    flags: list[str]
    env: dict[str, str]
    files: dict[str, str]
    paths: list[str]
    expected: Expected | None


class Case(NamedTuple):
    """One recorded case. `quirks`: ids of contract L that the recording shows."""

    name: str
    area: str
    inputs: dict[str, str]
    modes: dict[str, str]
    token: str | None
    quirks: list[str]
    steps: list[Step]


def load(name: str) -> Case:
    data: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return Case(
        name=data["name"],
        area=data["area"],
        inputs=data["inputs"],
        modes=data.get("modes", {}),
        token=data["service"].get("token", "") if "service" in data else None,
        quirks=data.get("quirks") or [],
        steps=[_step(step) for step in data["steps"]],
    )


def names() -> list[str]:
    return sorted(path.stem for path in GOLDEN.glob("*.json"))


def _step(data: dict[str, Any]) -> Step:
    expect = data.get("expect")
    expected = None
    if expect is not None and data["command"] != "http":
        expected = Expected(
            exit_code=expect["exit_code"],
            stdout_format=expect["stdout_format"],
            stdout=expect["stdout"],
            stderr=expect["stderr"],
            stderr_mentions=expect.get("stderr_mentions") or [],
            files=expect["files_after"],
        )
    return Step(
        command=data["command"],
        flags=data.get("flags") or [],
        env=data.get("env") or {},
        files=data.get("files") or {},
        paths=data.get("paths") or [],
        expected=expected,
    )
