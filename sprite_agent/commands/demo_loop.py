"""`sprite-agent demo-loop`: the demo reads its own command line; here it is only listed."""

from sprite_agent.demo.cli import main

__all__ = ["main"]
