"""The commands of `sprite-agent`, one module each."""
