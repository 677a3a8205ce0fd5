"""Use cases of scheduling: `core` answers calls and time, `facts` takes what the bus brings,
`state` is the planner with what it needs to stay true."""

from services.scheduling.service.core import SchedulingService
from services.scheduling.service.facts import Facts
from services.scheduling.service.state import PLAN, State, Tell

__all__ = ["PLAN", "Facts", "SchedulingService", "State", "Tell"]
