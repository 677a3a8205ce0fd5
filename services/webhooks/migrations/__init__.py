"""Steps of the schema, forward only."""
