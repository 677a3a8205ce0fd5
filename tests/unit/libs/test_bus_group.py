"""A group of subscribers under any order of events: nothing is lost, no key is out of order.

The group has no I/O, so Hypothesis plays publisher, members and crashes against it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from libs.bus import Record
from libs.bus.embedded.group import Group, Member

T = TypeVar("T")
TOPICS = ("t", "u")
KEYS = [f"key_{n}" for n in range(5)]


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of something that does not have to wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waited")


class GroupMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[Record] = []
        self.kept = dict.fromkeys(TOPICS, 0)
        self.committed: set[int] = set()
        self.open: list[Member] = []
        self.held: dict[Member, list[Record]] = {}
        self.restart()

    def restart(self) -> None:
        self.group = Group("g", TOPICS, self.kept, lambda group: None)
        self.open, self.held = [], {}

    @initialize(members=st.integers(0, 3), places=st.lists(st.integers(0, 9), max_size=20))
    def begin(self, members: int, places: list[int]) -> None:
        for _ in range(members):
            self.join()
        self.publish([(TOPICS[place % 2], KEYS[place // 2]) for place in places])

    def hand_out_rest(self) -> None:
        """What the bus does: everything behind the group's position, while someone is there."""
        if self.group.room() > 0:
            rest = [record for record in self.log if record.offset > self.group.position]
            self.group.hand_out(rest, max(self.group.position, len(self.log)))

    @rule(keys=st.lists(st.tuples(st.sampled_from(TOPICS), st.sampled_from(KEYS)), max_size=6))
    def publish(self, keys: list[tuple[str, str]]) -> None:
        for topic, key in keys:
            offset = len(self.log) + 1
            self.log.append(Record(topic, key, f"evt_{offset}", b"", {}, offset))
        self.hand_out_rest()

    @precondition(lambda self: len(self.open) < 4)
    @rule()
    def join(self) -> None:
        member = self.group.join()
        self.open.append(member)
        self.held[member] = []
        self.hand_out_rest()

    @precondition(lambda self: any(member.queue for member in self.open))
    @rule(data=st.data(), limit=st.integers(1, 4))
    def fetch(self, data: st.DataObject, limit: int) -> None:
        member = data.draw(st.sampled_from([m for m in self.open if m.queue]))
        taken = now(member.fetch(limit))
        assert 1 <= len(taken) <= limit
        assert not {record.offset for record in taken} & {r.offset for r in member.queue}
        self.held[member] += taken

    @precondition(lambda self: any(self.held[member] for member in self.open))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from([m for m in self.open if self.held[m]]))
        chosen = data.draw(st.lists(st.sampled_from(self.held[member]), unique_by=id))
        mine = set(member.in_flight)
        now(member.commit(chosen))
        self.committed |= {record.offset for record in chosen} & mine

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.open))
        self.open.remove(member)
        now(member.close())

    @rule()
    def keep_places(self) -> None:
        self.kept = self.group.places()

    @precondition(lambda self: len(self.log) > 25)
    @rule()
    def crash(self) -> None:
        self.restart()

    @invariant()
    def no_place_is_behind_what_is_not_done(self) -> None:
        for topic, place in self.group.places().items():
            missing = [
                r.offset for r in self.log if r.topic == topic and r.offset not in self.committed
            ]
            assert place < min(missing, default=len(self.log) + 1)

    @invariant()
    def a_key_has_one_owner_and_an_order(self) -> None:
        for key in KEYS:
            owners = [m for m in self.open if any(r.key == key for r in m.queue)]
            assert len(owners) <= 1
            for member in owners:
                offsets = [r.offset for r in member.queue if r.key == key]
                assert offsets == sorted(set(offsets))

    def teardown(self) -> None:
        self.drain()

    @precondition(lambda self: len(self.log) > 25)
    @rule()
    def drain(self) -> None:
        """Whatever happened, the rest of the log can be had and done with, in order per key."""
        if not self.open:
            self.join()
        last: dict[str, int] = {}
        for member in self.open:
            for record in [*member.in_flight.values()]:
                now(member.commit([record]))
                self.committed.add(record.offset)
            while member.queue:
                for record in now(member.fetch(3)):
                    assert last.get(record.key, 0) < record.offset
                    last[record.key] = record.offset
                    now(member.commit([record]))
                    self.committed.add(record.offset)
        assert self.committed == {record.offset for record in self.log}
        assert set(self.group.places().values()) == {len(self.log)}


TestGroup = GroupMachine.TestCase
TestGroup.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
