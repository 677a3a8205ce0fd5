"""A bus in one file for one process."""

from libs.bus.embedded.bus import EmbeddedBus

__all__ = ["EmbeddedBus"]
