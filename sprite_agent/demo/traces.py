"""What a demo loop traces: in each iteration, a handful of the points of a runtime of four layers.

No agent thinks here: what the spans tell is what the script decided, and their inputs say so. Times, order
and nesting are real.
"""

from contextlib import ExitStack
from typing import Any

from sprite_agent.demo.steps import Entry, Log, Step
from spritemesh.jsontext import JSON
from spritemesh.tracing import Span, tracer
from spritemesh.tracing.points import altitude, focus, learning, memory, reasoning
from spritemesh.values import get

# What the levels of altitude are here: the run, an iteration of it, and a role's part in that.
_RUN, _ITERATION, _PART = "L1", "L2", "L3"
# Of each span.
OF_DEMO: dict[str, Any] = {
    "component": "sprite_agent.demo",
    "input_data": "a demonstration: no agent took part",
}


class LoopTraces:
    """The spans of one run, as its steps are carried out. Close it at the end."""

    def __init__(self) -> None:
        self._iteration = ExitStack()
        self._part = ExitStack()
        self._plan: Span | None = None

    def carried_out(self, step: Step) -> None:
        """Tell of a step that is done. Does nothing unless tracing is on."""
        if not tracer.enabled:
            return
        if isinstance(step, Entry):
            entry = step.entry
            key = f"{get(entry, 'run_id')}/{get(entry, 'iteration')}"
            memory.write(namespace="run-summary", key=key, tier="file", **OF_DEMO).record("entry appended")
            self.close()  # the last that an iteration does
        elif isinstance(step, Log):
            self._logged(step)

    def close(self) -> None:
        """End what is open."""
        self._part.close()
        self._iteration.close()

    def _logged(self, step: Log) -> None:
        event, data = step.event, step.data
        if event == "iteration_start":
            self.close()
            intent = f"iteration {step.iteration}"
            self._plan = altitude.plan(altitude=_ITERATION, intent=intent, **OF_DEMO)
            self._iteration.enter_context(self._plan)
        elif event == "role_start":
            focus.route(signal_type="role", bundle=step.role, agents=[step.role], **OF_DEMO).record("started")
            part = altitude.execute(altitude=_PART, action_type=step.role, **OF_DEMO)
            self._part.enter_context(part)
        elif event == "role_end":
            self._part.close()
        elif event == "iteration_end" and self._plan is not None:
            self._plan.set_output("complete" if get(data, "completion") else "to be continued")
        else:
            _judged(event, data)


def _judged(event: str, data: JSON) -> None:
    """The gates of an iteration, and what the run comes to."""
    status = str(get(data, "status") or "")
    match event:
        case "checklist_end":
            reasoning.classify(input_type="checklist", confidence=1.0, **OF_DEMO).record(status)
        case "tests_end":
            with focus.gate_check(gate_type="tests", decision=status, **OF_DEMO) as gate:
                gate.set_output(status)
                if status != "ok":
                    gate.block(f"tests: {status}")
        case "stuck_checked" if get(data, "streak"):
            told = f"{get(data, 'streak')} of {get(data, 'threshold')} iterations without progress"
            learning.pattern_match(pattern_code="no_progress", confidence=1.0, **OF_DEMO).record(told)
        case "approval_requested":
            asked = reasoning.escalate(from_level=_RUN, to_level="operator", trigger="approval", **OF_DEMO)
            asked.record("asked")
        case "approval_rejected" | "approval_consumed":
            focus.gate_check(gate_type="approval", decision=status, **OF_DEMO).record(status)
        case "loop_complete" | "loop_stop":
            ended = altitude.evaluate(altitude=_RUN, verdict=event, confidence=1.0, **OF_DEMO)
            ended.record(str(get(data, "reason") or "done"))
