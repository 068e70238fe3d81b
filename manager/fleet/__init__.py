"""A fleet, live: registry, sessions, commits, and the board on which everything stands as it is now."""
