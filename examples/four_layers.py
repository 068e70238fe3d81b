"""A small agent built of layers that triages tickets, and tells what each layer does.

    python examples/four_layers.py                      do it
    python examples/four_layers.py --trace              show how on standard error, and keep it in trace.jsonl
    DOPEJAR_TRACE=1 python examples/four_layers.py      only keep it

Altitude plans and looks back, focus holds what may be done, reasoning decides, learning knows patterns,
memory keeps what was seen. Tickets are recognised in a thread pool, settled as asyncio tasks, and a misspelt
one goes to a child process: their spans are one tree.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from spritemesh.tracing import tracer
from spritemesh.tracing.points import altitude, focus, learning, memory, reasoning

HERE = "four_layers.py"
TICKETS = Path(__file__).with_name("tickets.txt")
# Pattern -> words that speak for it, who deals with it, and what only a person may allow.
WORDS = {
    "billing": {"charged", "invoice", "invoices", "refund"},
    "outage": {"error", "crash", "report", "slow"},
    "privacy": {"account", "delete", "personal"},
}
TEAMS = {"billing": "accounts", "outage": "on-call", "privacy": "records"}
NEEDS_CONSENT = {"privacy"}


class Ticket(NamedTuple):
    """One request. text: what the sender wrote, on one line."""

    id: str
    sender: str
    text: str


class Outcome(NamedTuple):
    """What became of a ticket. verdict: routed, blocked or failed. why: who has it now, or the reason."""

    ticket: str
    verdict: str
    why: str


@tracer.span("system", "read_tickets", HERE)
def read_tickets(path: Path) -> Iterator[Ticket]:
    """The tickets of a file, one a line; lines that begin with # are notes."""
    for line in path.read_text("utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            yield Ticket(*(part.strip() for part in line.split("|")))


def recognise(ticket: Ticket) -> str:
    """The pattern that a ticket follows, "" when it is like none. Raises ValueError when it says nothing.

    Runs in a thread of the pool; its span hangs from the one that was open when the pool was asked.
    """
    with reasoning.classify(component=HERE, input_data=ticket.text) as ctx:
        words = set(ticket.text.lower().replace(",", " ").replace("?", " ").split())
        if not words:
            raise ValueError(f"{ticket.id} says nothing")
        pattern = max(WORDS, key=lambda code: len(WORDS[code] & words))
        found = WORDS[pattern] & words
        if not found:
            ctx.set_output("like nothing known", input_type="unknown", confidence=0.0)
            return ""
        confidence = min(1.0, 0.5 + len(found) / 4)
        match = learning.pattern_match(pattern_code=pattern, confidence=confidence, component=HERE)
        match.record(", ".join(sorted(found)))
        ctx.set_output(pattern, input_type=pattern, confidence=confidence)
        return pattern


async def settle(ticket: Ticket, pattern: str, memories: dict[str, str]) -> Outcome:
    """Give a ticket to those who deal with it, and remember it. memories: sender -> last pattern."""
    with focus.route(signal_type=f"ticket {ticket.id}", component=HERE, input_data=ticket.text) as ctx:
        with memory.read(namespace="senders", key=ticket.sender, component=HERE) as reading:
            before = memories.get(ticket.sender, "")
            reading.set_output(before or "nothing yet", tier="working")
        pattern = pattern or await look_closer(ticket)
        if not pattern:
            ctx.block("like nothing known")
            return Outcome(ticket.id, "failed", "like nothing known")
        if pattern in NEEDS_CONSENT:
            with focus.consent_check(operation=pattern, component=HERE) as check:
                check.set_output(allowed=False)
                check.block("a person has to allow it")
            ctx.block("no consent")
            return Outcome(ticket.id, "blocked", f"{pattern}: a person has to allow it")
        remember(ticket, pattern, before, memories)
        ctx.set_output(TEAMS[pattern], bundle=pattern, agents=[TEAMS[pattern]])
        return Outcome(ticket.id, "routed", f"{pattern}: {TEAMS[pattern]}")


def remember(ticket: Ticket, pattern: str, before: str, memories: dict[str, str]) -> None:
    """Keep a word in the place of a text; what is met again moves to where it is found faster."""
    memories[ticket.sender] = pattern
    kept = memory.write(namespace="senders", key=ticket.sender, tier="working", component=HERE)
    kept.record(pattern, tokens_saved=len(ticket.text.split()) - 1)
    if before == pattern:
        memory.promote(key=ticket.sender, from_tier="working", to_tier="hot", component=HERE).record()


async def look_closer(ticket: Ticket) -> str:
    """What a child process takes a ticket for, "" when it knows nothing like it; its spans hang from ours."""
    with reasoning.escalate(from_level="words", to_level="spelling", component=HERE) as ctx:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--spelling", ticket.text),
            env=tracer.child_environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        answer, _ = await child.communicate()
        pattern, words = json.loads(answer)
        if pattern:
            WORDS[pattern] |= set(words)
            added = learning.pattern_add(pattern_code=pattern, source=ticket.id, component=HERE)
            added.record(", ".join(words))
        ctx.set_output(pattern or "like nothing known", trigger="no pattern")
        return str(pattern)


def spelling(text: str) -> tuple[str, list[str]]:
    """In the child: the pattern whose words a text comes nearest to, "" for none, and these as they are."""
    with reasoning.classify(component=HERE, input_data=text) as ctx:
        near = {
            code: [word for word in text.lower().split() if get_close_matches(word, known, cutoff=0.8)]
            for code, known in WORDS.items()
        }
        pattern = max(near, key=lambda code: len(near[code]))
        if not near[pattern]:
            ctx.set_output("like nothing known", input_type="unknown", confidence=0.0)
            return "", []
        learning.generalize(from_patterns=near[pattern], to_pattern=pattern, component=HERE).record()
        ctx.set_output(pattern, input_type=pattern, confidence=0.6)
        return pattern, near[pattern]


async def settle_all(recognised: dict[Ticket, str]) -> list[Outcome]:
    """Each ticket in a task of its own."""
    memories: dict[str, str] = {}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(settle(ticket, code, memories)) for ticket, code in recognised.items()]
    return [task.result() for task in tasks]


def triage(path: Path) -> list[Outcome]:
    """Recognise all tickets of a file, then settle those that say something."""
    outcomes: list[Outcome] = []
    recognised: dict[Ticket, str] = {}
    with altitude.plan(altitude="L3", intent=f"triage {path.name}", component=HERE) as ctx:
        tickets = list(read_tickets(path))
        altitude.transition(
            from_level="L3", to_level="L2", reason="tickets are here", component=HERE
        ).record()
        with altitude.execute(altitude="L2", action_type="recognise", component=HERE):
            with ThreadPoolExecutor(4) as pool:
                results = [(ticket, pool.submit(recognise, ticket)) for ticket in tickets]
            for ticket, result in results:
                try:
                    recognised[ticket] = result.result()
                except ValueError as error:
                    outcomes.append(Outcome(ticket.id, "failed", str(error)))
        focus.stance_change(from_stance="sense", to_stance="act", component=HERE).record()
        with altitude.execute(altitude="L2", action_type="settle", component=HERE):
            outcomes += asyncio.run(settle_all(recognised))
        verdict = f"{sum(outcome.verdict == 'routed' for outcome in outcomes)} of {len(tickets)} routed"
        altitude.evaluate(altitude="L3", verdict=verdict, component=HERE).record()
        ctx.set_output(verdict)
    return sorted(outcomes)


def main() -> None:
    """Print a line for each ticket."""
    parser = argparse.ArgumentParser(description="Triage tickets with an agent whose layers are traced.")
    parser.add_argument("file", nargs="?", type=Path, default=TICKETS, help="lines of: id | sender | text")
    parser.add_argument("--trace", action="store_true", help="trace, and show it on standard error")
    parser.add_argument("--spelling", metavar="TEXT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trace:
        tracer.configure(enabled=True, console=True)
    if args.spelling is not None:
        print(json.dumps(spelling(args.spelling)))
        return
    print("\n".join("  ".join(outcome) for outcome in triage(args.file)))


if __name__ == "__main__":
    main()
