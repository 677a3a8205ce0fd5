"""Named places where a test makes a process die, stop, fail or wait.

A place is declared once, at import: `AFTER_COMMIT = register("jobs.after_commit", "between ...")`,
and passed with `AFTER_COMMIT.hit()`. Unarmed, a hit is one dictionary lookup. `arm` takes

    name=kill | stop:<seconds> | error | delay:<milliseconds>   [:after=<n>]   [,name=...]

where `after=n` lets the first n hits pass.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import dataclass

REGISTER: dict[str, str] = {}
_ACTIONS = {"kill": False, "stop": True, "error": False, "delay": True}


class FailpointError(RuntimeError):
    """What an armed `error` raises; nothing in the product catches it by name."""


class FailpointSpecError(ValueError):
    """The text given to `arm` does not follow the grammar."""


@dataclass(slots=True)
class _Armed:
    action: str
    amount: float
    passes_left: int

    def due(self) -> bool:
        if self.passes_left > 0:
            self.passes_left -= 1
            return False
        return True


_ARMED: dict[str, _Armed] = {}


@dataclass(frozen=True, slots=True)
class Point:
    """One registered place."""

    name: str

    def hit(self) -> None:
        """Does what the place is armed for; blocks the thread on `delay`."""
        if self.name in _ARMED:
            time.sleep(_act(self.name))

    async def hit_async(self) -> None:
        """Like `hit`, but a `delay` lets the event loop go on."""
        if self.name in _ARMED:
            await asyncio.sleep(_act(self.name))


def register(name: str, where: str) -> Point:
    """Declares a place. `where` tells a person what has and has not happened yet at this point."""
    if REGISTER.setdefault(name, where) != where:
        raise ValueError(f"failpoint {name} is registered twice with different places")
    return Point(name)


def hit(name: str) -> None:
    """`Point(name).hit()` for a place that is registered elsewhere."""
    Point(name).hit()


async def hit_async(name: str) -> None:
    """`Point(name).hit_async()` for a place that is registered elsewhere."""
    await Point(name).hit_async()


def arm(spec: str | None) -> None:
    """Replaces all armed places by those in `spec`; empty or None disarms.

    Names are not checked against REGISTER, because places register when their module is imported.
    """
    armed = dict(_parse(item) for item in (spec or "").split(",") if item.strip())
    _ARMED.clear()
    _ARMED.update(armed)


def disarm() -> None:
    """Makes every place a no-op."""
    _ARMED.clear()


def _parse(item: str) -> tuple[str, _Armed]:
    name, _, rest = item.strip().partition("=")
    words = rest.split(":")
    action = words.pop(0)
    if not name or action not in _ACTIONS:
        raise FailpointSpecError(f"'{item}': want name={'|'.join(_ACTIONS)}")
    try:
        amount = float(words.pop(0)) if _ACTIONS[action] else 0.0
        passes = 0
        if words:
            key, _, value = words.pop(0).partition("=")
            if key != "after" or words:
                raise ValueError(key)
            passes = int(value)
    except (ValueError, IndexError):
        raise FailpointSpecError(
            f"'{item}': want stop:<seconds>, delay:<milliseconds>, and at most :after=<n> behind"
        ) from None
    return name, _Armed(action, amount, passes)


def _act(name: str) -> float:
    """Carries out the armed action; returns the seconds the caller has to wait."""
    armed = _ARMED[name]
    if not armed.due():
        return 0.0
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if armed.action == "stop":
        _stop(armed.amount)
    if armed.action == "error":
        raise FailpointError(f"failpoint {name}")
    return armed.amount / 1000 if armed.action == "delay" else 0.0


def _stop(seconds: float) -> None:
    # Someone outside has to send SIGCONT: a stopped process cannot wake itself.
    subprocess.Popen(
        ["/bin/sh", "-c", f"sleep {seconds:f}; kill -CONT {os.getpid():d}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.kill(os.getpid(), signal.SIGSTOP)
