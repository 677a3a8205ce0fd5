"""Nodes by kind and by what is free.

Within a kind, nodes are in levels by their number of free GPUs, and within a level in buckets of
nodes with exactly the same rest free. A best fit is the first bucket, in order, that is large
enough: a choice looks at a few buckets and not at the nodes. Every change moves one node.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from services.scheduling.domain import Hold, NodeInfo, Shape
from services.scheduling.planner.catalogue import Catalogue
from services.scheduling.planner.match import KindKey, Match, kind_key

# Free CPU, memory, disk, slots, and the free GPUs one by one where they differ.
Key = tuple[int, int, int, int, int]
_LOG_MAX = 8_192


class Node:
    """A node and what is free of it. `level` is its number of free GPUs."""

    __slots__ = (
        "cpu",
        "disk",
        "free",
        "holds",
        "info",
        "key",
        "kind",
        "level",
        "listed",
        "memory",
        "node_id",
        "slots",
    )

    def __init__(self, info: NodeInfo, kind: Kind) -> None:
        self.node_id = info.node_id
        self.info = info
        self.kind = kind
        self.holds: dict[str, Hold] = {}
        self.listed = False
        self.reset()

    def reset(self) -> None:
        """Works out again what is free."""
        key = self.kind.key
        self.cpu, self.memory, self.disk = key.cpu_millis, key.memory_bytes, key.disk_bytes
        self.slots = key.slots
        self.free = (1 << len(key.models)) - 1
        for hold in self.holds.values():
            self.take(hold)
        self.place()

    def take(self, hold: Hold) -> None:
        """Lessens what is free; `place` has to follow."""
        self.cpu -= hold.cpu_millis
        self.memory -= hold.memory_bytes
        self.disk -= hold.disk_bytes
        self.slots -= 1
        if hold.gpu_uuids:
            self.free &= ~self.mask(hold)

    def give(self, hold: Hold) -> None:
        """Undoes `take`."""
        self.cpu += hold.cpu_millis
        self.memory += hold.memory_bytes
        self.disk += hold.disk_bytes
        self.slots += 1
        if hold.gpu_uuids:
            self.free |= self.mask(hold)
        self.place()

    def place(self) -> None:
        """Works out level and bucket."""
        self.level = self.free.bit_count()
        self.key = (
            self.cpu,
            self.memory,
            self.disk,
            self.slots,
            self.free if self.kind.mixed else 0,
        )

    def mask(self, hold: Hold) -> int:
        """Bits of the GPUs that a hold has; a GPU that is gone has none."""
        if not hold.gpu_uuids:
            return 0
        uuids = hold.gpu_uuids
        return sum(1 << place for place, gpu in enumerate(self.info.gpus) if gpu.uuid in uuids)

    def fits(self, shape: Shape, found: Match) -> bool:
        """One task of the shape can be taken now."""
        return (
            self.cpu >= shape.cpu_millis
            and self.memory >= shape.memory_bytes
            and self.disk >= shape.disk_bytes
            and self.slots >= 1
            and (not shape.gpu_count or (self.free & found.mask).bit_count() >= shape.gpu_count)
        )


class Level:
    """Buckets of one number of free GPUs; `keys` is sorted, and so is every bucket."""

    __slots__ = ("buckets", "keys")

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.buckets: dict[Key, list[str]] = {}

    def add(self, key: Key, node_id: str) -> None:
        bucket = self.buckets.get(key)
        if bucket is None:
            self.buckets[key] = [node_id]
            insort(self.keys, key)
        else:
            insort(bucket, node_id)

    def remove(self, key: Key, node_id: str) -> None:
        bucket = self.buckets[key]
        if len(bucket) == 1:
            del self.buckets[key]
            del self.keys[bisect_left(self.keys, key)]
        else:
            del bucket[bisect_left(bucket, node_id)]


class Kind:
    """All nodes of one kind that take work."""

    __slots__ = ("key", "levels", "mixed", "nodes", "open", "sample")

    def __init__(self, key: KindKey) -> None:
        self.key = key
        # GPUs that are not alike have to be told apart bit by bit.
        self.mixed = len({*zip(key.models, key.memories, strict=True)}) > 1
        self.levels: list[Level] = [Level() for _ in range(len(key.models) + 1)]
        self.nodes = 0
        self.open = 0
        self.sample: NodeInfo | None = None

    def find(self, shape: Shape, found: Match, avoid: frozenset[str]) -> str | None:
        """The node of this kind that fits best, fewest free GPUs first; None when none does."""
        cpu, memory, disk = shape.cpu_millis, shape.memory_bytes, shape.disk_bytes
        count, mask, whole = shape.gpu_count, found.mask, found.whole
        for level in self.levels[count:]:
            keys = level.keys
            for place in range(bisect_left(keys, (cpu,)), len(keys)):
                key = keys[place]
                if (
                    key[1] < memory
                    or key[2] < disk
                    or key[3] < 1
                    or not (whole or (key[4] & mask).bit_count() >= count)
                ):
                    continue
                bucket = level.buckets[key]
                if not avoid:
                    return bucket[0]
                for node_id in bucket:
                    if node_id not in avoid:
                        return node_id
        return None


class Grid:
    """All nodes. `changed` is the log of nodes that may fit more than before."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.nodes: dict[str, Node] = {}
        self.kinds: dict[KindKey, Kind] = {}
        self.holds: dict[str, Hold] = {}
        # Nodes kept free for one entry: not in any bucket.
        self.kept: dict[str, str] = {}
        # Rises when a kind appears or goes: what was worked out over all kinds is then old.
        self.generation = 0
        self.changed: list[str] = []
        self.changed_base = 0

    def put(self, info: NodeInfo) -> None:
        """A node is new or has changed. Its holds stay."""
        key = kind_key(info, self.catalogue)
        node = self.nodes.get(info.node_id)
        if node is None:
            node = self.nodes[info.node_id] = Node(info, self._kind(key))
            node.kind.nodes += 1
        else:
            self._unlist(node)
            self._count(node, -1)
            if node.kind.key != key:
                self._leave(node.kind)
                node.kind = self._kind(key)
                node.kind.nodes += 1
            node.info = info
        node.kind.sample = info
        node.reset()
        self._count(node, 1)
        self._list(node)
        self._note(node)

    def take(self, hold: Hold) -> None:
        """Resources of a node are held."""
        if hold.allocation_id in self.holds:
            return
        self.holds[hold.allocation_id] = hold
        node = self.nodes.get(hold.node_id)
        if node is None:
            return
        self._unlist(node)
        node.holds[hold.allocation_id] = hold
        node.take(hold)
        node.place()
        self._list(node)

    def free(self, allocation_id: str, *, note: bool = True) -> Hold | None:
        """Resources are free again; None when they were already. `note=False` when the node is
        only back to what it was a moment ago."""
        hold = self.holds.pop(allocation_id, None)
        node = self.nodes.get(hold.node_id) if hold is not None else None
        if hold is None or node is None:
            return hold
        self._unlist(node)
        del node.holds[allocation_id]
        node.give(hold)
        self._list(node)
        if note:
            self._note(node)
        return hold

    def keep(self, node_id: str, job_id: str) -> None:
        """Keeps a node free for one job."""
        node = self.nodes[node_id]
        self._unlist(node)
        self.kept[node_id] = job_id

    def unkeep(self, node_id: str) -> None:
        """The node is for everyone again."""
        if self.kept.pop(node_id, None) is not None:
            node = self.nodes[node_id]
            self._list(node)
            self._note(node)

    def changes(self, since: int) -> Iterator[Node] | None:
        """Nodes that may fit more than before, from a place in the log; None when it is too old."""
        start = since - self.changed_base
        if start < 0:
            return None
        return (self.nodes[node_id] for node_id in self.changed[start:])

    @property
    def now(self) -> int:
        """The present place in the log."""
        return self.changed_base + len(self.changed)

    def _note(self, node: Node) -> None:
        if len(self.changed) >= _LOG_MAX:
            self.changed_base += len(self.changed)
            self.changed = []
        self.changed.append(node.node_id)

    def _list(self, node: Node) -> None:
        if node.info.open and node.node_id not in self.kept:
            node.kind.levels[node.level].add(node.key, node.node_id)
            node.listed = True

    def _unlist(self, node: Node) -> None:
        if node.listed:
            node.kind.levels[node.level].remove(node.key, node.node_id)
            node.listed = False

    def _count(self, node: Node, step: int) -> None:
        if node.info.open:
            node.kind.open += step

    def _kind(self, key: KindKey) -> Kind:
        found = self.kinds.get(key)
        if found is None:
            found = self.kinds[key] = Kind(key)
            self.generation += 1
        return found

    def _leave(self, kind: Kind) -> None:
        kind.nodes -= 1
        if not kind.nodes:
            del self.kinds[kind.key]
            self.generation += 1
