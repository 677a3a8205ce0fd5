"""Starting, supervising and stopping the parts of one operating-system process."""

from libs.process.context import Context
from libs.process.module import Module, Part, Servicer, Watched
from libs.process.run import PartFailed, run
from libs.process.task import TaskPart

__all__ = ["Context", "Module", "Part", "PartFailed", "Servicer", "TaskPart", "Watched", "run"]
