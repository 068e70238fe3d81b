"""The trace points that the layers have: what each tells, and how it is told in a few words.

`points.py` is generated from this table. Other operations are kept, and counted as unknown; those of the
system layer are the programs' own and never are.
"""

from collections.abc import Mapping
from typing import NamedTuple

from spritemesh.tracing.layers import SYSTEM


class Point(NamedTuple):
    """An operation of a layer.

    does: what happens, for people.
    given: members of `metadata` that are known when it begins, each with its type.
    found: those that may only be known at its end, in the same way.
    told: what stands between the operation and the outcome on the console, with members in braces.
    note: what stands behind the outcome in brackets, likewise; "" for nothing.
    """

    does: str
    given: Mapping[str, str]
    found: Mapping[str, str]
    told: str
    note: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all members."""
        return (*self.given, *self.found)


POINTS: dict[str, dict[str, Point]] = {
    "altitude": {
        "transition": Point(
            "The runtime moves to another level of abstraction.",
            {"from_level": "str", "to_level": "str"},
            {"reason": "str"},
            "{from_level}→{to_level}",
        ),
        "evaluate": Point(
            "It judges whether a level fits.",
            {"altitude": "str"},
            {"verdict": "str", "confidence": "float"},
            "{altitude} {verdict}",
        ),
        "plan": Point(
            "It plans on a level.",
            {"altitude": "str", "intent": "str"},
            {"plan_summary": "str"},
            "{intent}",
        ),
        "execute": Point(
            "It acts on a level.",
            {"altitude": "str", "action_type": "str"},
            {},
            "{altitude} {action_type}",
        ),
    },
    "focus": {
        "stance_change": Point(
            "The runtime takes another stance.",
            {"from_stance": "str", "to_stance": "str"},
            {"gate": "str"},
            "{from_stance}→{to_stance}",
        ),
        "gate_check": Point(
            "A gate decides whether to go on.",
            {"gate_type": "str"},
            {"decision": "str", "reason": "str"},
            "{gate_type} {decision}",
        ),
        "lane_switch": Point(
            "Work changes its lane.",
            {"from_lane": "str", "to_lane": "str"},
            {"reason": "str"},
            "{from_lane}→{to_lane}",
        ),
        "consent_check": Point(
            "It asks whether an operation is allowed.",
            {"operation": "str"},
            {"allowed": "bool"},
            "{operation}",
        ),
        "route": Point(
            "A signal is given to those who can deal with it.",
            {"signal_type": "str"},
            {"bundle": "str", "agents": "Sequence[str]"},
            "{signal_type}→{bundle}",
        ),
    },
    "reasoning": {
        "classify": Point(
            "An input is classified.",
            {},
            {"input_type": "str", "confidence": "float"},
            "{input_type}",
        ),
        "route": Point(
            "A strategy is chosen.",
            {},
            {"strategy": "str", "reason": "str"},
            "{strategy}",
        ),
        "escalate": Point(
            "A question goes to a higher level.",
            {"from_level": "str", "to_level": "str"},
            {"trigger": "str"},
            "{from_level}→{to_level}",
        ),
    },
    "learning": {
        "pattern_match": Point(
            "A known pattern is met.",
            {},
            {"pattern_code": "str", "confidence": "float"},
            "{pattern_code}",
        ),
        "pattern_add": Point(
            "A pattern is learned.",
            {"pattern_code": "str"},
            {"source": "str"},
            "{pattern_code}",
        ),
        "pattern_trim": Point(
            "A pattern is given up.",
            {"pattern_code": "str"},
            {"reason": "str"},
            "{pattern_code}",
        ),
        "generalize": Point(
            "Patterns become a more general one.",
            {"from_patterns": "Sequence[str]"},
            {"to_pattern": "str"},
            "{from_patterns}→{to_pattern}",
        ),
    },
    "memory": {
        "read": Point(
            "A memory is looked up.",
            {"namespace": "str", "key": "str"},
            {"tier": "str"},
            "{namespace}/{key}",
        ),
        "write": Point(
            "A memory is kept.",
            {"namespace": "str", "key": "str"},
            {"tier": "str", "tokens_saved": "int"},
            "{namespace}/{key}",
            "saved {tokens_saved} tokens",
        ),
        "promote": Point(
            "A memory moves to a faster tier.",
            {"key": "str", "from_tier": "str", "to_tier": "str"},
            {},
            "{key} {from_tier}→{to_tier}",
        ),
        "demote": Point(
            "A memory moves to a slower tier.",
            {"key": "str", "from_tier": "str", "to_tier": "str"},
            {},
            "{key} {from_tier}→{to_tier}",
        ),
    },
}


def is_known(layer: str, operation: str) -> bool:
    """Whether the layer, by its full name, has this operation. The system layer has every one."""
    return layer == SYSTEM.name or operation in POINTS.get(layer, {})
