"""What `ops-manager doctor` looks at: agents as the manager reaches them, and the manager's own files."""
