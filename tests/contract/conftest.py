"""Fixtures of the golden cases: a workspace, and an agent that serves it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.playback import Service
from tests.contract.workspace import Workspace

# The token that the recorded service was started with.
TOKEN = "tok"
STOP_TIMEOUT_SECONDS = 10


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def agent(workspace: Workspace) -> Iterator[Service]:
    """A running agent for the workspace's repository."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    words = ["serve", "--repo", str(workspace.repo), "--grpc", "127.0.0.1:0", "--token", TOKEN]
    process = subprocess.Popen(
        [sys.executable, "-m", "sprite_agent", *words],
        env=workspace.environment({"PYTHONPATH": path}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1].decode()
        yield Service(f"grpc://{json.loads(line)['grpc']}", TOKEN)
    finally:
        # Its orderly end takes a second, and has tests of its own.
        process.kill()
        process.communicate(timeout=STOP_TIMEOUT_SECONDS)
