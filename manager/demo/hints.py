"""What to try next, as commands that work while the demonstration runs."""

import os
import shutil
import sys
from collections.abc import Sequence

from spritemesh.names import SERVICE_TOKEN_VARIABLE
from spritemesh.shellquote import quote_words

# The name of the operator's step in the traces.
_TRACE_ID = "my-approval"


def watch_hint(repo: str, token_file: str) -> str:
    """Look at the fleet of a manager's repository. token_file: with the manager's token."""
    return _command("fleet", "status", "--repo", repo, "--token-file", token_file, "--output", "table")


def approve_hints(repo: str, loop_id: str, *, url: str, token_file: str) -> Sequence[str]:
    """Decide what a loop waits for, and see what came of it. url, token_file: of its agent."""
    service = ("--transport", "sprite_service", "--service-base-url", url)
    approve = _command(
        *("control", "--repo", repo, "--loop", loop_id, "--intent", "approve", "--trace-id", _TRACE_ID),
        *service,
    )
    return (
        f'{SERVICE_TOKEN_VARIABLE}="$(cat {quote_words([token_file])})" {approve}',
        _command("trace", _TRACE_ID, "--repo", repo),
    )


def recent_hint(repo: str) -> str:
    """See what was done last."""
    return _command("trace", "--repo", repo, "--recent", "10")


def _command(*words: str) -> str:
    """A command line for a shell. The program is named by its path unless the shell finds it by its name."""
    program = os.path.join(os.path.dirname(sys.executable), "ops-manager")
    found = shutil.which("ops-manager")
    if found is not None and os.path.realpath(found) == os.path.realpath(program):
        program = "ops-manager"
    return quote_words([program, *words])
