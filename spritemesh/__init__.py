"""What the sprite agent and the ops manager share."""

__version__ = "0.1.0"
