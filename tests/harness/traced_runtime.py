"""A runtime that traces: a program that decides what is pending, with threads, tasks and a pool."""

import sys
from pathlib import Path

from tests.harness.loops import LoopFiles, event

_PROGRAM = """\
import asyncio, os, sys, threading
from concurrent.futures import ThreadPoolExecutor

from spritemesh.tracing import tracer
from spritemesh.tracing.points import altitude, focus, learning, memory, reasoning

DIRECTORY, LINE = {directory!r}, {line!r}


def remember(key):
    with memory.write(namespace="approvals", key=key, tier="hot", tokens_saved=45, component="store.py"):
        tracer.event("learning", "pattern_match", "store.py", metadata={{"pattern_code": key}})


def classify():
    with reasoning.classify(component="judge.py") as ctx:
        ctx.set_output("a decision", input_type="approval", confidence=0.9)


async def act(what):
    async with altitude.execute(altitude="L3", action_type=what, component="hands.py"):
        await asyncio.sleep(0)
        with altitude.transition(from_level="L3", to_level="L2", component="hands.py"):
            await asyncio.to_thread(remember, what)


async def act_twice():
    await asyncio.gather(act("left"), act("right"))


if not tracer.enabled:
    tracer.configure(enabled=True, output=os.path.join(DIRECTORY, "trace.jsonl"))
with focus.gate_check(gate_type="approval", component="runtime.py", input_data=sys.argv[1:]) as gate:
    thread = threading.Thread(target=classify)
    thread.start()
    thread.join()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(remember, ("one", "two")))
    asyncio.run(act_twice())
    os.unlink(os.path.join(DIRECTORY, "approval.json"))
    with open(os.path.join(DIRECTORY, "events.jsonl"), "a", encoding="utf-8") as log:
        log.write(LINE)
    gate.set_output("approved", decision="approved")
"""
# Operations of the program, and how often each is traced.
OPERATIONS = {
    "gate_check": 1,
    "classify": 1,
    "execute": 2,
    "transition": 2,
    "write": 4,
    "pattern_match": 4,
}


def make_runtime(path: Path, loop: LoopFiles) -> Path:
    """The program, for one loop. It traces as its environment says, else into the loop's directory."""
    line = event(9, "loop_complete").decode()
    program = _PROGRAM.format(directory=str(loop.directory), line=line)
    path.write_text(f"#!{sys.executable}\n{program}")
    path.chmod(0o755)
    return path


def await_approval(loop: LoopFiles) -> None:
    """Let the loop wait for a decision."""
    approval = {"status": "pending", "run_id": "run-1", "iteration": 1, "candidate": {"text": "done"}}
    loop.put("approval.json", approval)
