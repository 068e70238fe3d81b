"""Who answers: the sprite, and this start of its agent."""

from typing import NamedTuple


class Identity(NamedTuple):
    """boot_id: of this start of the agent, or since it was last suspended. sprite_id "": there is none."""

    boot_id: str = ""
    sprite_id: str = ""
