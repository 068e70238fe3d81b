"""A stand-in for the loop runtime, for demonstration and tests: nothing here runs an agent.

It writes the runtime's own artifacts (contract A) at a chosen pace and obeys the runtime's command lines
for cancel and approve (contract E.1). What it reports about roles, tests and gates is made up; the files,
their shapes and their order are not.
"""
