"""What a fleet's dashboard shows: queries of docs/metrics.md, and how to draw them (`tools.dashboard` does).

Counts come first, then what the fleet does, then single loops, then the programs themselves.
"""

from typing import NamedTuple

# Every metric of a manager, of the managers that were chosen.
MANAGER = 'instance=~"$manager"'
_LOOP = f'{MANAGER}, loop=~"$loop"'
_AGENT = 'job="sprite-agent"'
_RATE = "[$__rate_interval]"
# Of a panel with a series for each of many.
_MOST = 20


class Query(NamedTuple):
    """What is asked, and the name of the series that come back: text with {{label}}."""

    expr: str
    legend: str


class Figure(NamedTuple):
    """One number, and from which value on it is orange and red; None: never."""

    title: str
    description: str
    expr: str
    unit: str = "short"
    orange_from: float | None = None
    red_from: float | None = None


class Graph(NamedTuple):
    """Series over time. parts: names of series that add up to a whole, in order; width: of 24 columns."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    parts: tuple[str, ...] = ()
    width: int = 8


FIGURES = (
    Figure("Loops", "Loops of the fleet.", f"sum(ops_manager_loops{{{MANAGER}}})"),
    Figure(
        "Critical",
        "Loops whose health is critical.",
        f'sum(ops_manager_loops_by_health{{{MANAGER}, status="critical"}})',
        red_from=1,
    ),
    Figure(
        "Degraded",
        "Loops whose health is degraded.",
        f'sum(ops_manager_loops_by_health{{{MANAGER}, status="degraded"}})',
        orange_from=1,
    ),
    Figure(
        "Out of reach",
        "Loops to which no connection stands (connection_lost).",
        f'sum(ops_manager_loops_by_connection{{{MANAGER}, state="down"}})',
        orange_from=1,
    ),
    Figure(
        "Control frozen",
        "Loops whose control is frozen, as by sprite_cloned.",
        f"sum(ops_manager_loops_control_frozen{{{MANAGER}}}) or vector(0)",
        red_from=1,
    ),
    Figure(
        "Awaiting approval",
        "Loops that wait for somebody to decide.",
        f"sum(ops_manager_loops_awaiting_approval{{{MANAGER}}})",
        orange_from=1,
    ),
    Figure(
        "Oldest heartbeat",
        "Age of the oldest last heartbeat of the enabled loops.",
        f"max(ops_manager_oldest_heartbeat_age_seconds{{{MANAGER}}})",
        "s",
        orange_from=15,
        red_from=60,
    ),
    Figure(
        "Lag",
        "Lines that wait to be applied, of all loops.",
        f"sum(ops_manager_lag_lines{{{MANAGER}}})",
        orange_from=10_000,
        red_from=1_000_000,
    ),
)


def _by_state(metric: str) -> tuple[Query, ...]:
    return (Query(f"sum by (state) ({metric}{{{MANAGER}}})", "{{state}}"),)


def _rate(metric: str, legend: str) -> Query:
    return Query(f"sum(rate({metric}{{{MANAGER}}}{_RATE}))", legend)


ROWS: tuple[tuple[str, tuple[Graph, ...]], ...] = (
    (
        "Fleet",
        (
            Graph(
                "Health",
                "Loops by health.",
                (Query(f"sum by (status) (ops_manager_loops_by_health{{{MANAGER}}})", "{{status}}"),),
                parts=("healthy", "degraded", "critical", "unknown"),
                width=6,
            ),
            Graph(
                "Connections",
                "Loops by state of the way to them.",
                _by_state("ops_manager_loops_by_connection"),
                parts=("up", "connecting", "waiting", "down", "disabled"),
                width=6,
            ),
            Graph(
                "Agents",
                "Loops by state of their agent.",
                _by_state("ops_manager_loops_by_agent"),
                parts=("alive", "silent", "draining", "unknown"),
                width=6,
            ),
            Graph(
                "Runtimes",
                "Loops by state of their runtime's process.",
                _by_state("ops_manager_loops_by_runtime"),
                parts=("alive", "idle", "dead", "unknown"),
                width=6,
            ),
            Graph(
                "Reasons",
                "Loops by reason code of their health; a loop may count under several."
                " `ops-manager explain` tells what a code means.",
                (Query(f"sum by (reason) (ops_manager_loops_by_reason{{{MANAGER}}}) > 0", "{{reason}}"),),
                width=12,
            ),
            Graph(
                "Alerts",
                "Alerts of deploy/prometheus/rules.yml that fire, by reason code.",
                (
                    Query(
                        "count by (alertname, reason)"
                        ' (ALERTS{alertname=~"Spritemesh.*", alertstate="firing"})',
                        "{{alertname}} {{reason}}",
                    ),
                ),
                width=12,
            ),
        ),
    ),
    (
        "Events",
        (
            Graph(
                "Applied",
                "Events applied, each once.",
                (_rate("ops_manager_events_applied_total", "events"),),
                "cps",
            ),
            Graph(
                "Lag",
                "Lines that wait to be applied: of all loops, and of the loop with the most.",
                (
                    Query(f"sum(ops_manager_lag_lines{{{MANAGER}}})", "all loops"),
                    Query(f"max(ops_manager_lag_lines_max{{{MANAGER}}})", "the loop with the most"),
                    Query(f"sum(ops_manager_uncommitted_lines{{{MANAGER}}})", "applied, not on disk yet"),
                ),
            ),
            Graph(
                "Oldest heartbeat",
                "Age of the oldest last heartbeat of the enabled loops.",
                (Query(f"max(ops_manager_oldest_heartbeat_age_seconds{{{MANAGER}}})", "age"),),
                "s",
            ),
            Graph(
                "Interruptions",
                "Connections lost, events that came again, gaps, and logs that started over.",
                (
                    _rate("ops_manager_disconnects_total", "connections lost"),
                    _rate("ops_manager_events_replayed_total", "events replayed"),
                    _rate("ops_manager_batch_gaps_total", "gaps"),
                    _rate("ops_manager_log_resets_total", "logs replaced, rewritten or truncated"),
                ),
                "cps",
            ),
            Graph(
                "Commits",
                "Commits to disk, and those that failed.",
                (
                    _rate("ops_manager_commits_total", "commits"),
                    _rate("ops_manager_commit_failures_total", "failed"),
                ),
                "cps",
            ),
            Graph(
                "Lines that are no events",
                "Lines that were put aside.",
                (_rate("ops_manager_lines_quarantined_total", "lines"),),
                "cps",
            ),
            Graph(
                "Traces of the runtimes",
                "Lines stored; streams lost, lines that are no trace events, and writes that failed.",
                (
                    _rate("ops_manager_trace_lines_total", "lines"),
                    _rate("ops_manager_trace_failures_total", "failures"),
                ),
                "cps",
            ),
        ),
    ),
    (
        "Loops (those in worst health first, at most 500)",
        (
            Graph(
                "Not healthy",
                "1 while the loop's health is degraded or critical.",
                (
                    Query(
                        f'ops_manager_loop_health{{{_LOOP}, status=~"degraded|critical"}} == 1',
                        "{{loop}} {{status}}",
                    ),
                ),
            ),
            Graph(
                "Lag",
                "Lines that wait to be applied, of the loops with the most.",
                (Query(f"topk({_MOST}, ops_manager_loop_lag_lines{{{_LOOP}}})", "{{loop}}"),),
            ),
            Graph(
                "Heartbeat age",
                "Age of the last heartbeat, of the loops with the oldest.",
                (Query(f"topk({_MOST}, ops_manager_loop_heartbeat_age_seconds{{{_LOOP}}})", "{{loop}}"),),
                "s",
            ),
        ),
    ),
    (
        "Managers",
        (
            Graph(
                "Processor",
                "Cores in use.",
                (
                    Query(
                        f'rate(process_cpu_seconds_total{{job="ops-manager", {MANAGER}}}{_RATE})',
                        "{{instance}}",
                    ),
                ),
                "percentunit",
            ),
            Graph(
                "Memory",
                "Resident memory.",
                (Query(f'process_resident_memory_bytes{{job="ops-manager", {MANAGER}}}', "{{instance}}"),),
                "bytes",
            ),
            Graph(
                "Open files",
                "Of how many may be open.",
                (
                    Query(
                        f'process_open_fds{{job="ops-manager", {MANAGER}}}'
                        f' / process_max_fds{{job="ops-manager", {MANAGER}}}',
                        "{{instance}}",
                    ),
                ),
                "percentunit",
            ),
            Graph(
                "Streams",
                "Streams that subscribers of the fleet have open now.",
                (Query(f"ops_manager_streams{{{MANAGER}}}", "{{instance}}"),),
            ),
            Graph(
                "Refusals",
                "Calls of the manager that ended in an error, by reason code.",
                (
                    Query(
                        "sum by (reason) (rate(ops_manager_calls_total"
                        f'{{{MANAGER}, reason!~"ok|cancelled"}}{_RATE}))',
                        "{{reason}}",
                    ),
                ),
                "cps",
            ),
        ),
    ),
    (
        f"Agents (the {_MOST} with the most)",
        (
            Graph(
                "Processor",
                "Cores in use.",
                (
                    Query(
                        f"topk({_MOST}, rate(process_cpu_seconds_total{{{_AGENT}}}{_RATE}))", "{{instance}}"
                    ),
                ),
                "percentunit",
            ),
            Graph(
                "Memory",
                "Resident memory.",
                (Query(f"topk({_MOST}, process_resident_memory_bytes{{{_AGENT}}})", "{{instance}}"),),
                "bytes",
            ),
            Graph(
                "Event loop lag",
                "How late the event loop wakes up: large when the agent is stuck.",
                (Query(f"topk({_MOST}, sprite_agent_event_loop_lag_seconds{{{_AGENT}}})", "{{instance}}"),),
                "s",
            ),
            Graph(
                "Streams",
                "Streams open now.",
                (Query(f"topk({_MOST}, sprite_agent_streams{{{_AGENT}}})", "{{instance}}"),),
            ),
            Graph(
                "Refusals",
                "Calls that ended in an error, by reason code.",
                (
                    Query(
                        "sum by (reason) (rate(sprite_agent_calls_total"
                        f'{{{_AGENT}, reason!~"ok|cancelled"}}{_RATE}))',
                        "{{reason}}",
                    ),
                ),
                "cps",
            ),
            Graph(
                "Control",
                "Control requests that were answered, by outcome.",
                (
                    Query(
                        "sum by (intent, status)"
                        f" (increase(sprite_agent_control_requests_total{{{_AGENT}}}{_RATE}))",
                        "{{intent}} {{status}}",
                    ),
                ),
            ),
        ),
    ),
)
