"""Control of loops: requests that are executed at most once (docs/wire.md, contract E)."""

from sprite_agent.control.plane import DEFAULT_RUNTIME_SECONDS, ControlPlane
from sprite_agent.control.record import Caller

__all__ = ["DEFAULT_RUNTIME_SECONDS", "Caller", "ControlPlane"]
