"""Forward-only steps of the schema of nodes."""
