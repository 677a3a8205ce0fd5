"""Use cases of nodes."""

from services.nodes.service.claims import Claims
from services.nodes.service.deps import Deps, Launches
from services.nodes.service.enrolment import Enrolled, Enrolment
from services.nodes.service.leases import Leases
from services.nodes.service.liveness import Liveness
from services.nodes.service.operations import Operations
from services.nodes.service.streams import Streams

__all__ = ["Deps", "Enrolled", "Launches", "NodesService"]


class NodesService:
    """The use cases, by who causes them: operators, nodes, other services, time."""

    def __init__(self, deps: Deps) -> None:
        self.enrolment = Enrolment(deps)
        self.operations = Operations(deps)
        self.leases = Leases(deps)
        self.claims = Claims(deps)
        self.streams = Streams(deps)
        self.liveness = Liveness(deps, self.streams)
