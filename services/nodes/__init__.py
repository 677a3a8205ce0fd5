"""Nodes: who offers hardware, and the leases under which it runs attempts."""
