"""Names that both sides and their scripts know."""

# Trace id of a request: metadata of gRPC, header of HTTP, and variable of commands (contract 0.4, D.3).
TRACE_ID_HEADER = "x-trace-id"
TRACE_ID_VARIABLE = "OPS_MANAGER_TRACE_ID"
# The span that caused a request: metadata of gRPC, header of HTTP, and variable of commands
# (spritemesh.tracing).
TRACE_PARENT_HEADER = "x-trace-parent"
TRACE_PARENT_VARIABLE = "DOPEJAR_TRACE_PARENT"
# Environment variables that switch tracing on, and name the files with spans and with settings.
TRACING_VARIABLE = "DOPEJAR_TRACE"
TRACING_FILE_VARIABLE = "DOPEJAR_TRACE_FILE"
TRACING_SETTINGS_VARIABLE = "DOPEJAR_SETTINGS"
# The settings of the working directory, which count where the variable names no other.
TRACING_SETTINGS_FILE = ".superloop/settings.yaml"
# Environment variable with the token of an agent or service (contract K).
SERVICE_TOKEN_VARIABLE = "OPS_MANAGER_SERVICE_TOKEN"  # noqa: S105 - a variable's name, no secret
# Environment variable with the token that callers of a running manager need; never that of an agent.
LISTEN_TOKEN_VARIABLE = "OPS_MANAGER_LISTEN_TOKEN"  # noqa: S105 - a variable's name, no secret
# Header or metadata field with the signature of a request (docs/security.md).
SIGNATURE_HEADER = "x-ops-signature"
# Header by which each answer of an agent's HTTP service says whose it is: an agent runs no key twice, and
# checks targets of control itself.
AGENT_HEADER = "x-superloop-agent"
# Member `writer` of a heartbeat.v1.json that an agent keeps in the runtime's place.
HEARTBEAT_WRITER = "sprite-agent"
