"""Inputs that people upload, and files that their jobs leave."""
