"""The services of the grid; each owns its tables and speaks to the others by stub or topic."""
