"""Forward-only steps of identity's schema."""
