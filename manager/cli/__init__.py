"""The command `ops-manager`. What its commands take and print is contract K."""

from collections.abc import Sequence

from spritemesh.program import Command, Program

COMMANDS: dict[str, Command] = {
    "status": Command("manager.cli.status", "tell how a loop is, from the manager's files"),
    "run": Command("manager.cli.run", "watch a whole fleet, live, until stopped", stays=True),
    "top": Command("manager.cli.top", "watch a fleet that a manager runs, live", stays=True),
    "fleet": Command("manager.cli.fleet", "fleet status: tell how the loops of a running manager are"),
    "reconcile": Command(
        "manager.cli.reconcile", "read what is new of a loop, and bring the manager's files up to date"
    ),
    "control": Command("manager.cli.control", "step in once: cancel a loop, or decide what it waits for"),
    "confirm-intent": Command("manager.cli.confirm_intent", "look for the effect of an intent"),
    "explain": Command("spritemesh.commands.explain", "tell what a reason code means and what to do next"),
    "trace": Command("manager.cli.trace", "show what happened under one trace id, from intent to alert"),
    "doctor": Command(
        "manager.cli.doctor", "look why an agent or a fleet does not work, step by step, and tell what to do"
    ),
    "audit": Command("manager.cli.audit", "audit verify: find what was altered or removed in the audit"),
    "loop-run-snapshot": Command("manager.cli.loop_run_snapshot", "take a snapshot of a loop"),
    "poll-events": Command("manager.cli.poll_events", "print the events of a loop since the last time"),
    "project-state": Command("manager.cli.project_state", "derive a loop's state from a snapshot and events"),
    "health": Command("manager.cli.health", "judge a loop's health from files, and write nothing"),
    "threshold-profile": Command("manager.cli.threshold_profile", "show a threshold profile, or list them"),
    "telemetry-summary": Command(
        "manager.cli.telemetry_summary", "sum up the last passes, and recommend a profile"
    ),
    "alert-sink-config": Command(
        "manager.cli.alert_sink_config", "check the catalog of alert sinks, and tell who is told of what"
    ),
    "alert-dispatch": Command(
        "manager.cli.alert_dispatch", "send escalations that are new, or due again, to their sinks"
    ),
    "service-client": Command(
        "manager.cli.service_client", "send one HTTP request to a service, for scripts"
    ),
    "profile-drift": Command("manager.cli.profile_drift", "compare the applied with the recommended profile"),
}
PROGRAM = Program("ops-manager", "See, trust and steer agent loops that run in sprites.", COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (`spritemesh.program`)."""
    return PROGRAM.main(argv)
