"""Lines for a person: what happens, and how long after the beginning."""

from __future__ import annotations

import os
import re
import sys
import time

_COLOURS = {"dim": "2", "bold": "1", "green": "32", "yellow": "33", "red": "31"}
# All control bytes but tab: a job's output must not drive the reader's terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Console:
    """Prints steps with the elapsed seconds; colours only on a terminal without NO_COLOR."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def step(self, text: str, colour: str = "bold") -> None:
        """One thing that happened, stamped with the seconds since the start."""
        stamp = f"{time.monotonic() - self._began:6.1f}s"
        print(f"{self.paint(stamp, 'dim')}  {self.paint(text, colour)}", flush=True)

    def line(self, text: str = "") -> None:
        """Plain text."""
        print(text, flush=True)

    def log(self, stream: str, text: str) -> None:
        """One line of a job's output, made harmless for the terminal."""
        mark = "!" if stream == "stderr" else "|"
        print(f"         {self.paint(mark, 'dim')} {_CONTROL.sub('', text)}", flush=True)

    def fail(self, text: str) -> None:
        """Why it cannot go on, on stderr."""
        print(self.paint(text, "red"), file=sys.stderr, flush=True)

    def paint(self, text: str, colour: str) -> str:
        """`text` in `colour`, or as it is where colours are off."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colour else text
