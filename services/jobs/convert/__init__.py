"""Proto <-> domain. drafts: requests; views: replies; facts: records; shapes: shared messages."""
