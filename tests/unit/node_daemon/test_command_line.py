"""The daemon's command line, file and environment; and how it says that it cannot start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from libs.config import ConfigError
from services.node_daemon.__main__ import BAD_START, _parser, main, settings
from services.node_daemon.config import NodeConfig
from services.node_daemon.module import make_gpus, make_runtimes

ROOT = Path(__file__).parents[3]
FILE = """
[node]
grid = "grid.example:7443"
gpus = "simulated:l4:24GiB:2"
slots = 3
enrolment_token_file = "{home}/token"
[node.limits]
log_gap_seconds = 5
"""


def read(*words: str) -> NodeConfig:
    return settings(_parser().parse_args(words))


def test_the_command_line_stands_over_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(FILE)
    monkeypatch.setenv("GRID_NODE__SLOTS", "5")
    monkeypatch.setenv("GRID_NODE__REGION", "eu")
    found = read(
        *("--home", str(tmp_path), "--config", str(file), "--region", "us"),
        *("--runtime", "docker", "--runtime", "sandbox"),
    )
    assert (found.grid, found.slots, found.region) == ("grid.example:7443", 5, "us")
    assert found.runtimes == ("docker", "sandbox")
    assert found.enrolment_token_file == tmp_path / "token"
    assert found.limits.log_gap_seconds == 5
    assert not found.insecure_sandbox


def test_mistakes_are_named(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path))
    with pytest.raises(ConfigError, match="grid"):
        read(*home)
    with pytest.raises(ConfigError, match="slots"):
        read(*home, "--grid", "x:1", "--slots", "0")
    config = read(*home, "--grid", "x:1", "--gpus", "magic")
    with pytest.raises(ValueError, match="gpus"):
        make_gpus(config)


def test_runtimes_come_in_the_order_given(tmp_path: Path) -> None:
    from libs.clock import SystemClock

    config = read(
        *("--home", str(tmp_path), "--grid", "x:1"),
        *("--runtime", "simulated", "--runtime", "sandbox"),
    )
    made = make_runtimes(config, None, SystemClock())
    assert [each.name for each in made.values()] == ["simulated", "sandbox"]


def test_help_and_a_bad_start_are_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "services.node_daemon"]
    helped = subprocess.run(
        [*command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--enrolment-token-file" in helped.stdout
    words = ["--home", str(tmp_path), "--grid", f"unix:{tmp_path}/none.sock"]
    assert main([*words, "--runtime", "simulated"]) == BAD_START
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == "node: this node is not enrolled; give it --enrolment-token-file"


def test_one_daemon_per_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from services.node_daemon.__main__ import _lock

    held = _lock(tmp_path)
    words = ["--home", str(tmp_path), "--grid", "x:1", "--runtime", "simulated"]
    assert main(words) == BAD_START
    assert "another daemon runs" in capsys.readouterr().err
    held.close()
