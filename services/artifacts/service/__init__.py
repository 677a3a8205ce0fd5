"""Use cases of artifacts, one class a noun."""

from services.artifacts.service.downloads import Downloads
from services.artifacts.service.inputs import Inputs
from services.artifacts.service.ports import JobRef, Jobs
from services.artifacts.service.slots import InputSlots, Slot
from services.artifacts.service.sweep import Sweeper
from services.artifacts.service.uploads import Upload, Uploads

__all__ = [
    "Downloads",
    "InputSlots",
    "Inputs",
    "JobRef",
    "Jobs",
    "Slot",
    "Sweeper",
    "Upload",
    "Uploads",
]
