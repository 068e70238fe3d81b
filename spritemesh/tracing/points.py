"""The trace points of the catalog, typed: a method for each, which makes a span. Written by
`make docs`, do not edit.

    with memory.write(namespace="facts", key="color", component="store.py") as ctx:
        ctx.set_output("kept", tier="hot", tokens_saved=45)

    altitude.transition(from_level="L3", to_level="L2").record()

What is not known yet may be left out, and told at the end. component: file or class that does it. input_data:
what it is done with, of which the beginning becomes the summary.
"""

from collections.abc import Sequence

from spritemesh.tracing import tracer
from spritemesh.tracing.span import Span


class _Altitude:
    """Points of the layer altitude."""

    __slots__ = ()

    @staticmethod
    def transition(
        *,
        from_level: str,
        to_level: str,
        reason: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """The runtime moves to another level of abstraction."""
        metadata: dict[str, object] = {"from_level": from_level, "to_level": to_level}
        if reason is not None:
            metadata["reason"] = reason
        return tracer.span("altitude", "transition", component, input_data, metadata=metadata)

    @staticmethod
    def evaluate(
        *,
        altitude: str,
        verdict: str | None = None,
        confidence: float | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """It judges whether a level fits."""
        metadata: dict[str, object] = {"altitude": altitude}
        if verdict is not None:
            metadata["verdict"] = verdict
        if confidence is not None:
            metadata["confidence"] = confidence
        return tracer.span("altitude", "evaluate", component, input_data, metadata=metadata)

    @staticmethod
    def plan(
        *,
        altitude: str,
        intent: str,
        plan_summary: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """It plans on a level."""
        metadata: dict[str, object] = {"altitude": altitude, "intent": intent}
        if plan_summary is not None:
            metadata["plan_summary"] = plan_summary
        return tracer.span("altitude", "plan", component, input_data, metadata=metadata)

    @staticmethod
    def execute(
        *,
        altitude: str,
        action_type: str,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """It acts on a level."""
        metadata: dict[str, object] = {"altitude": altitude, "action_type": action_type}
        return tracer.span("altitude", "execute", component, input_data, metadata=metadata)


class _Focus:
    """Points of the layer focus."""

    __slots__ = ()

    @staticmethod
    def stance_change(
        *,
        from_stance: str,
        to_stance: str,
        gate: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """The runtime takes another stance."""
        metadata: dict[str, object] = {"from_stance": from_stance, "to_stance": to_stance}
        if gate is not None:
            metadata["gate"] = gate
        return tracer.span("focus", "stance_change", component, input_data, metadata=metadata)

    @staticmethod
    def gate_check(
        *,
        gate_type: str,
        decision: str | None = None,
        reason: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A gate decides whether to go on."""
        metadata: dict[str, object] = {"gate_type": gate_type}
        if decision is not None:
            metadata["decision"] = decision
        if reason is not None:
            metadata["reason"] = reason
        return tracer.span("focus", "gate_check", component, input_data, metadata=metadata)

    @staticmethod
    def lane_switch(
        *,
        from_lane: str,
        to_lane: str,
        reason: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """Work changes its lane."""
        metadata: dict[str, object] = {"from_lane": from_lane, "to_lane": to_lane}
        if reason is not None:
            metadata["reason"] = reason
        return tracer.span("focus", "lane_switch", component, input_data, metadata=metadata)

    @staticmethod
    def consent_check(
        *,
        operation: str,
        allowed: bool | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """It asks whether an operation is allowed."""
        metadata: dict[str, object] = {"operation": operation}
        if allowed is not None:
            metadata["allowed"] = allowed
        return tracer.span("focus", "consent_check", component, input_data, metadata=metadata)

    @staticmethod
    def route(
        *,
        signal_type: str,
        bundle: str | None = None,
        agents: Sequence[str] | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A signal is given to those who can deal with it."""
        metadata: dict[str, object] = {"signal_type": signal_type}
        if bundle is not None:
            metadata["bundle"] = bundle
        if agents is not None:
            metadata["agents"] = agents
        return tracer.span("focus", "route", component, input_data, metadata=metadata)


class _Reasoning:
    """Points of the layer reasoning."""

    __slots__ = ()

    @staticmethod
    def classify(
        *,
        input_type: str | None = None,
        confidence: float | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """An input is classified."""
        metadata: dict[str, object] = {}
        if input_type is not None:
            metadata["input_type"] = input_type
        if confidence is not None:
            metadata["confidence"] = confidence
        return tracer.span("reasoning", "classify", component, input_data, metadata=metadata)

    @staticmethod
    def route(
        *,
        strategy: str | None = None,
        reason: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A strategy is chosen."""
        metadata: dict[str, object] = {}
        if strategy is not None:
            metadata["strategy"] = strategy
        if reason is not None:
            metadata["reason"] = reason
        return tracer.span("reasoning", "route", component, input_data, metadata=metadata)

    @staticmethod
    def escalate(
        *,
        from_level: str,
        to_level: str,
        trigger: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A question goes to a higher level."""
        metadata: dict[str, object] = {"from_level": from_level, "to_level": to_level}
        if trigger is not None:
            metadata["trigger"] = trigger
        return tracer.span("reasoning", "escalate", component, input_data, metadata=metadata)


class _Learning:
    """Points of the layer learning."""

    __slots__ = ()

    @staticmethod
    def pattern_match(
        *,
        pattern_code: str | None = None,
        confidence: float | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A known pattern is met."""
        metadata: dict[str, object] = {}
        if pattern_code is not None:
            metadata["pattern_code"] = pattern_code
        if confidence is not None:
            metadata["confidence"] = confidence
        return tracer.span("learning", "pattern_match", component, input_data, metadata=metadata)

    @staticmethod
    def pattern_add(
        *,
        pattern_code: str,
        source: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A pattern is learned."""
        metadata: dict[str, object] = {"pattern_code": pattern_code}
        if source is not None:
            metadata["source"] = source
        return tracer.span("learning", "pattern_add", component, input_data, metadata=metadata)

    @staticmethod
    def pattern_trim(
        *,
        pattern_code: str,
        reason: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A pattern is given up."""
        metadata: dict[str, object] = {"pattern_code": pattern_code}
        if reason is not None:
            metadata["reason"] = reason
        return tracer.span("learning", "pattern_trim", component, input_data, metadata=metadata)

    @staticmethod
    def generalize(
        *,
        from_patterns: Sequence[str],
        to_pattern: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """Patterns become a more general one."""
        metadata: dict[str, object] = {"from_patterns": from_patterns}
        if to_pattern is not None:
            metadata["to_pattern"] = to_pattern
        return tracer.span("learning", "generalize", component, input_data, metadata=metadata)


class _Memory:
    """Points of the layer memory."""

    __slots__ = ()

    @staticmethod
    def read(
        *,
        namespace: str,
        key: str,
        tier: str | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A memory is looked up."""
        metadata: dict[str, object] = {"namespace": namespace, "key": key}
        if tier is not None:
            metadata["tier"] = tier
        return tracer.span("memory", "read", component, input_data, metadata=metadata)

    @staticmethod
    def write(
        *,
        namespace: str,
        key: str,
        tier: str | None = None,
        tokens_saved: int | None = None,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A memory is kept."""
        metadata: dict[str, object] = {"namespace": namespace, "key": key}
        if tier is not None:
            metadata["tier"] = tier
        if tokens_saved is not None:
            metadata["tokens_saved"] = tokens_saved
        return tracer.span("memory", "write", component, input_data, metadata=metadata)

    @staticmethod
    def promote(
        *,
        key: str,
        from_tier: str,
        to_tier: str,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A memory moves to a faster tier."""
        metadata: dict[str, object] = {"key": key, "from_tier": from_tier, "to_tier": to_tier}
        return tracer.span("memory", "promote", component, input_data, metadata=metadata)

    @staticmethod
    def demote(
        *,
        key: str,
        from_tier: str,
        to_tier: str,
        component: str = "",
        input_data: object = None,
    ) -> Span:
        """A memory moves to a slower tier."""
        metadata: dict[str, object] = {"key": key, "from_tier": from_tier, "to_tier": to_tier}
        return tracer.span("memory", "demote", component, input_data, metadata=metadata)


altitude = _Altitude()
focus = _Focus()
reasoning = _Reasoning()
learning = _Learning()
memory = _Memory()
