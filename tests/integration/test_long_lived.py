"""Programs that stay collect garbage; those that end soon do not waste time on it."""

import subprocess
import sys

import pytest

from tests.harness.loops import Repo

# Runs a program's own `main`, with what it would serve replaced by a look at the collector.
_LOOK = """
import gc, sys
from {module} import main
import {server} as server
async def look(*_):
    print(gc.isenabled())
server.{function} = look
sys.argv = sys.argv[1:]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "server", "function", "words"),
    [
        ("manager.cli", "manager.fleet.manager", "manage", ("ops-manager", "run", "--output", "json")),
        (
            "sprite_agent.cli",
            "sprite_agent.server",
            "serve",
            ("sprite-agent", "serve", "--allow-unauthenticated"),
        ),
    ],
)
def test_program_that_stays_collects_garbage(
    repo: Repo, module: str, server: str, function: str, words: tuple[str, ...]
) -> None:
    repo.loop()
    script = _LOOK.format(module=module, server=server, function=function)
    argv = [sys.executable, "-c", script, *words, "--repo", str(repo.root)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
