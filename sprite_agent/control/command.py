"""The three command lines of the runtime, their program and their environment (contract E.1)."""

import os
import shutil
import sys
from collections.abc import Mapping

from sprite_agent.runtime.layout import trace_files
from spritemesh import traced
from spritemesh.control import ControlRequest
from spritemesh.names import (
    SERVICE_TOKEN_VARIABLE,
    TRACE_ID_VARIABLE,
    TRACE_PARENT_VARIABLE,
    TRACING_FILE_VARIABLE,
    TRACING_SETTINGS_FILE,
    TRACING_SETTINGS_VARIABLE,
)
from spritemesh.traceparent import TRACEPARENT_VARIABLE, traceparent_for

_VARIABLE = "SUPERLOOP_BIN"
_DEFAULT_PROGRAM = "superloop.sh"


def runtime_program(given: str | None, environment: Mapping[str, str]) -> str:
    """The runtime's program: `given`, else of SUPERLOOP_BIN, else superloop.sh beside the running program or
    on PATH. It need not exist."""
    named = given or environment.get(_VARIABLE, "")
    if named:
        return named
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), _DEFAULT_PROGRAM)
    if os.path.isfile(beside):
        return beside
    return shutil.which(_DEFAULT_PROGRAM, path=environment.get("PATH")) or _DEFAULT_PROGRAM


def command_line(program: str, repo: str, request: ControlRequest) -> list[str]:
    """The words of a request. No others are ever run."""
    if request.intent == "cancel":
        return [program, "cancel", "--repo", repo]
    words = [program, "approve", "--repo", repo, "--loop", request.loop_id, "--by", request.requested_by]
    if request.intent == "reject":
        words.append("--reject")
    if request.note:
        words += ["--note", request.note]
    return words


def child_environment(environment: Mapping[str, str], repo: str, trace_id: str) -> dict[str, str]:
    """The environment of a command that is run now: `environment` without the agent's token, with the trace,
    and with the step that runs it as the parent of its spans.

    A runtime works in our directory, as in v1, and its tracer looks for settings and writes there. Where
    nobody says otherwise it is led to those of its repository, and to a file of it that is served.
    """
    left_out = (SERVICE_TOKEN_VARIABLE, TRACEPARENT_VARIABLE, TRACE_PARENT_VARIABLE)
    child = {name: value for name, value in environment.items() if name not in left_out}
    child[TRACE_ID_VARIABLE] = trace_id
    parent = traceparent_for(trace_id)
    if parent is not None:
        child[TRACEPARENT_VARIABLE] = parent
    said = environment.get(TRACING_FILE_VARIABLE) or environment.get(TRACING_SETTINGS_VARIABLE)
    if not said and not os.path.exists(TRACING_SETTINGS_FILE):
        child[TRACING_FILE_VARIABLE] = os.path.join(repo, trace_files(repo)[0])
        settings = os.path.join(repo, TRACING_SETTINGS_FILE)
        if os.path.exists(settings):
            child[TRACING_SETTINGS_VARIABLE] = settings
    step = traced.parent_id()
    if step:
        child[TRACE_PARENT_VARIABLE] = step
    return child
