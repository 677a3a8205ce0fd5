"""Builds the contracts: generated code, and the baseline they are compared with."""
