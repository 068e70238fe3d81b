"""The command `sprite-agent`."""

import os
import sys
from collections.abc import Sequence

from spritemesh.program import TRACE_FLAG, Command, Program

# gRPC's fork handlers kill children now and then; must be set before the first import of grpc.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# What its core has to say on standard error, we say in words of our own.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

PROGRAM = Program(
    "sprite-agent",
    "Serve the agent loops of one repository to operators outside.",
    {
        "serve": Command(
            "sprite_agent.commands.serve",
            "serve a repository's loops over gRPC",
            stays=True,
            traces_in_repo=True,
        ),
        "check": Command(
            "sprite_agent.commands.check", "look at all that an agent needs here, and ask the agent itself"
        ),
        "demo-loop": Command(
            "sprite_agent.demo.cli",
            "play a runtime that writes a loop, to look at and to test with",
        ),
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (`spritemesh.program`)."""
    words = sys.argv[1:] if argv is None else list(argv)
    is_traced = words[:1] == [TRACE_FLAG]
    rest = words[1:] if is_traced else words
    if rest[:1] == ["demo-loop"]:
        # The demo reads its own command line, which has the runtime's form.
        from sprite_agent.demo.cli import main as demo_main

        return demo_main(rest[1:], trace=is_traced)
    return PROGRAM.main(argv)
