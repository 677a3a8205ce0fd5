"""Hints between loops: `notify` a channel, and whoever waits on it looks at its table.

A hint carries nothing and may be lost by a process that dies; tables decide. Every waiter has a
timeout, which is its slow sweep.
"""

from libs.wake.port import Wake, connect

__all__ = ["Wake", "connect"]
