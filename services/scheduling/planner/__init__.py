"""Decisions without I/O: `Planner` is fed by changes and answers plan, quote and explain.

catalogue   which GPU a driver's name means
match       which kinds of node fit a shape, at what price and rank, or why not
grid        nodes by kind and by what is free, so that a choice does not look at every node
queue       who is next
plan        choices, and nodes kept free for entries that have waited long
quote       what is said before there is an entry
"""

from services.scheduling.planner.catalogue import Catalogue
from services.scheduling.planner.grid import Grid
from services.scheduling.planner.plan import Planner, Rules
from services.scheduling.planner.queue import Queue
from services.scheduling.planner.quote import explain, quote

__all__ = ["Catalogue", "Grid", "Planner", "Queue", "Rules", "explain", "quote"]
