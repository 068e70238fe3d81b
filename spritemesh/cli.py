"""The command `spritemesh`."""

from collections.abc import Sequence

from spritemesh.program import Command, Program

PROGRAM = Program(
    "spritemesh",
    "Read what agents and managers of loops write.",
    {
        "explain": Command(
            "spritemesh.commands.explain", "tell what a reason code means and what to do next"
        ),
        "trace": Command(
            "spritemesh.commands.trace",
            "view the spans of a runtime's layers, or their statistics",
            shows_traces=True,
        ),
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (`spritemesh.program`)."""
    return PROGRAM.main(argv)
