"""Jobs: from a submitted draft to a final status."""
