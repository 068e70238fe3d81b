"""What `sprite-agent check` looks at inside the sprite: repository, host, and where an agent listens."""
