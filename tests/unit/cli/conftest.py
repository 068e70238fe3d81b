"""Fixtures of the command-line tests."""

from collections.abc import Callable

import pytest

from manager.cli import main

Ran = tuple[int, str, str]
Call = Callable[..., Ran]


@pytest.fixture
def call(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run one command line; gives exit code, standard output and standard error."""
    monkeypatch.delenv("SPRITEMESH_DEBUG", raising=False)

    def run(*words: str) -> Ran:
        code = main(list(words))
        captured = capsysbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return run
