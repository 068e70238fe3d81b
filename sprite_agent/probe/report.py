"""What a check prints: a document for programs, and plain lines for people."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from sprite_agent.probe.steps import Result, Step
from spritemesh.jsontext import JSON

_TROUBLE = (Result.WARNING, Result.FAILED)
# Of more subjects, those that are well are not told of in full.
_MANY_SUBJECTS = 4


class Subject(NamedTuple):
    """What was looked at, as people are told of it. steps: those worth telling."""

    heading: str
    steps: list[Step]


def document_of(steps: Sequence[Step]) -> dict[str, JSON]:
    """The document of a report; ok: no step failed."""
    return {
        "schemaVersion": "v1",
        "ok": not any(step.result is Result.FAILED for step in steps),
        "counts": {str(result): sum(step.result is result for step in steps) for result in Result},
        "steps": [step.document() for step in steps],
    }


def subjects_of(steps: Sequence[Step]) -> list[Subject]:
    """The subjects of a report, whose steps follow each other."""
    groups = [(name, list(found)) for name, found in groupby(steps, key=lambda step: step.subject)]
    if len(groups) <= _MANY_SUBJECTS:
        return [Subject(*group) for group in groups]
    return [
        Subject(name, found) if any(step.result in _TROUBLE for step in found) else Subject(f"{name}: ok", [])
        for name, found in groups
    ]


def detail_of(step: Step) -> str:
    """What a step found, with its reason."""
    return f"{step.detail} [{step.reason}]" if step.reason else step.detail


def advice_of(step: Step) -> str:
    """What to do about a step that is not well; "" for nothing."""
    return f"-> {step.next}" if step.next and step.result in _TROUBLE else ""


def lines_of(steps: Sequence[Step]) -> Iterator[str]:
    """A report for people: subjects, their steps, and below a step that is not well what to do."""
    width = max((len(step.name) for step in steps), default=0)
    for subject in subjects_of(steps):
        yield subject.heading
        for step in subject.steps:
            yield f"  {step.result:<8} {step.name:<{width}}  {detail_of(step)}"
            if advice := advice_of(step):
                yield f"  {'':<8} {'':<{width}}  {advice}"


def failure_of(steps: Sequence[Step]) -> tuple[str, str] | None:
    """Message and reason for the error line of a command: the first step that failed; None without one."""
    failed = [step for step in steps if step.result is Result.FAILED]
    if not failed:
        return None
    first = failed[0]
    others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    return f"{first.subject}: {first.name}: {first.detail}{others}", first.reason
