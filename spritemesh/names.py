"""Names that both sides and their scripts know."""

# Environment variable with the token of an agent or service (contract K).
SERVICE_TOKEN_VARIABLE = "OPS_MANAGER_SERVICE_TOKEN"  # noqa: S105 - a variable's name, no secret
