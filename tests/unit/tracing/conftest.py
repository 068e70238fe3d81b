from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.tracing import Traced, traced


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    """A tracer that writes into the test's directory."""
    monkeypatch.chdir(tmp_path)
    with traced(tmp_path / "trace.jsonl") as tracing:
        yield tracing
