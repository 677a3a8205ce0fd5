"""Control groups of the three kinds, on recorded trees: folders that hold what a kernel would show.

The kind that this machine has is also used for real, by the sandbox's contract tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from services.node_daemon import cgroups
from services.node_daemon.cgroups import Group, Layout, Limits

V2 = "30 23 0:26 / {root} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = """31 30 0:27 / {root}/memory rw - cgroup cgroup rw,memory
32 30 0:28 / {root}/pids rw - cgroup cgroup rw,pids
33 30 0:29 / {root}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / {root}/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
HYBRID = V1 + "35 30 0:31 / {root}/unified rw - cgroup2 cgroup2 rw\n"


def layout(text: str, root: Path) -> Layout:
    return cgroups.detect(text.format(root=root), "junglegrid/node")


def files(group: Group, **content: str) -> None:
    """The kernel makes these with the folder; a recorded tree has to be given them."""
    for folder in set(group.folders.values()):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in content.items():
            (Path(folder) / name.replace("__", ".")).write_text(text)


def read(group: Group, tree: str, name: str) -> str:
    return (Path(group.folders[tree]) / name).read_text()


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    assert layout(V2, tmp_path).kind == "v2"
    assert layout(V1, tmp_path).kind == "v1"
    assert layout(HYBRID, tmp_path).kind == "hybrid"
    none = layout("22 1 0:20 / /proc rw - proc proc rw\n", tmp_path)
    assert (none.kind, none.missing) == ("none", ("memory", "pids", "cpu"))


def test_v1_finds_each_controller_also_where_two_share_a_tree(tmp_path: Path) -> None:
    found = layout(V1, tmp_path)
    assert found.trees["cpu"] == f"{tmp_path}/cpu,cpuacct/junglegrid/node"
    assert found.missing == ()


def test_a_controller_that_is_not_mounted_is_missing(tmp_path: Path) -> None:
    text = "".join(line + "\n" for line in V1.splitlines() if "pids" not in line)
    assert layout(text, tmp_path).missing == ("pids",)


def test_a_space_in_a_mount_point_is_read(tmp_path: Path) -> None:
    text = "30 23 0:26 / /a\\040b rw - cgroup2 cgroup2 rw\n"
    assert cgroups.detect(text, "x").trees["memory"] == "/a b/x"


def test_limits_on_v2(tmp_path: Path) -> None:
    group = layout(V2, tmp_path).group("lease_1")
    files(group, memory__max="", memory__swap__max="", pids__max="", cpu__max="")
    group.create(Limits(memory_bytes=1000, pids_max=7, cpu_millis=1500))
    assert read(group, "memory", "memory.max") == "1000"
    assert read(group, "memory", "memory.swap.max") == "0"
    assert read(group, "pids", "pids.max") == "7"
    assert read(group, "cpu", "cpu.max") == "150000 100000"


def test_limits_on_v1_where_swap_is_not_counted(tmp_path: Path) -> None:
    group = layout(V1, tmp_path).group("lease_1")
    files(group, memory__limit_in_bytes="", pids__max="", cpu__cfs_quota_us="",
          cpu__cfs_period_us="")  # fmt: skip
    group.create(Limits(memory_bytes=1000, pids_max=7, cpu_millis=250))
    assert read(group, "memory", "memory.limit_in_bytes") == "1000"
    assert read(group, "pids", "pids.max") == "7"
    assert read(group, "cpu", "cpu.cfs_quota_us") == "25000"


def test_no_limit_writes_nothing(tmp_path: Path) -> None:
    group = layout(V2, tmp_path).group("lease_1")
    files(group, memory__max="max", pids__max="max", cpu__max="max")
    group.create(Limits(0, 0, 0))
    assert read(group, "memory", "memory.max") == "max"


def test_usage_on_v2(tmp_path: Path) -> None:
    group = layout(V2, tmp_path).group("lease_1")
    files(group, memory__events="low 0\noom 1\noom_kill 2\n", memory__peak="4096\n",
          cpu__stat="usage_usec 1500\nuser_usec 1000\n")  # fmt: skip
    assert group.usage() == (2, 4096, 1_500_000)


def test_usage_on_hybrid_takes_the_processor_from_the_v2_tree(tmp_path: Path) -> None:
    group = layout(HYBRID, tmp_path).group("lease_1")
    files(group, memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
          memory__max_usage_in_bytes="8192\n", cpu__stat="usage_usec 10\n")  # fmt: skip
    assert group.usage() == (1, 8192, 10_000)


def test_kill_uses_the_v2_tree_where_there_is_one(tmp_path: Path) -> None:
    for text in (V2, HYBRID):
        group = layout(text, tmp_path).group("lease_1")
        files(group, cgroup__kill="", cgroup__procs="")
        assert group.kill()
        assert read(group, "unified", "cgroup.kill") == "1"


def test_a_group_that_is_gone_is_empty_and_no_error(tmp_path: Path) -> None:
    group = layout(V1, tmp_path).group("lease_1")
    assert group.processes() == []
    assert group.kill()
    assert group.usage() == (0, 0, 0)
    group.remove()


def test_prepare_hands_controllers_down_on_v2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("")
    node = tmp_path / "node"
    node.mkdir()
    (node / "cgroup.subtree_control").write_text("")
    found = cgroups.detect(V2.format(root=tmp_path), "node")
    ready = cgroups.prepare(found)
    assert ready.missing == ()
    # A recorded file keeps only the last write; a kernel would show all three.
    assert (node / "cgroup.subtree_control").read_text() == "+cpu"


def test_prepare_says_what_it_could_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: str, name: str) -> None:
        if name == "cpu":
            raise PermissionError(name)

    monkeypatch.setattr(cgroups, "_enable", refuse)
    ready = cgroups.prepare(cgroups.detect(V2.format(root=tmp_path), "node"))
    assert ready.missing == ("cpu",)
    assert "cpu" not in ready.trees
    assert "memory" in ready.trees


def test_a_group_travels_as_json(tmp_path: Path) -> None:
    group = layout(HYBRID, tmp_path).group("lease_1")
    again = Group.from_json(group.to_json())
    assert (again.kind, again.folders) == (group.kind, group.folders)
