"""`make run`: a small fleet, from the loops' files over gRPC to an operator, with the real programs.

Three demo loops play the runtime in three repositories: one is healthy and goes on for ever, one awaits an
approval, one fails its tests and stops. Each has an agent on a free loopback port; one `ops-manager run`
watches them all, and the fleet is shown as the manager tells it. A repository that is given takes the place
of the three; it is only read, but for the heartbeat that the agent keeps while a loop runs there, which is
removed again.

Everything else is kept in a temporary directory, and is gone at the end, even at that of SIGKILL.
"""
