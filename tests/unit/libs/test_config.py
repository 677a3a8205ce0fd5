"""Settings: what is right is typed, what is wrong is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from libs.config import ConfigError, Environment, load, overlay, read_toml


class Policy(Enum):
    STRICT = "strict"
    ALLOW = "allow"


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Settings:
    name: str
    limit_seconds: float = 1.0
    count: int = 3
    on: bool = False
    folder: Path = Path("x")
    policy: Policy = Policy.STRICT
    mode: Literal["a", "b"] = "a"
    maybe: str | None = None
    tags: tuple[str, ...] = ()
    prices: dict[str, int] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


def settings(**values: Any) -> Settings:
    return load("jobs", Settings, {"jobs": {"name": "n", **values}})


def test_types_are_filled_in() -> None:
    found = settings(
        limit_seconds=2,
        folder="/a",
        policy="allow",
        mode="b",
        tags=["x", "y"],
        prices={"a100": 5},
        inner={"size": 7},
    )
    assert found == Settings(
        "n",
        2.0,
        folder=Path("/a"),
        policy=Policy.ALLOW,
        mode="b",
        tags=("x", "y"),
        prices={"a100": 5},
        inner=Inner(7),
    )
    assert isinstance(found.limit_seconds, float)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"nmae": 1}, "does not know 'nmae'"),
        ({"count": "3"}, "jobs.count must be a whole number"),
        ({"count": True}, "jobs.count must be a whole number"),
        ({"on": 1}, "jobs.on must be true or false"),
        ({"limit_seconds": "2"}, "jobs.limit_seconds must be a number"),
        ({"policy": "lax"}, "jobs.policy must be one of strict, allow"),
        ({"mode": "c"}, "jobs.mode must be one of a, b"),
        ({"tags": "x"}, "jobs.tags must be a list"),
        ({"tags": [1]}, "jobs.tags[0] must be text"),
        ({"prices": {"a": "x"}}, "jobs.prices.a must be a whole number"),
        ({"inner": {"siez": 1}}, "[jobs.inner] does not know 'siez'"),
        ({"count": -1}, "[jobs] count must not be negative"),
    ],
)
def test_every_mistake_is_named_by_its_path(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**values)
    assert words in str(caught.value)


def test_a_setting_without_default_is_needed() -> None:
    with pytest.raises(ConfigError, match="needs 'name'"):
        load("jobs", Settings, {})
    with pytest.raises(ConfigError, match="table of settings"):
        load("jobs", Settings, {"jobs": 1})


def test_variables_fill_strings_at_any_depth_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[a]\nurl = "sqlite:///{home}/{service}.db"\nlist = ["{home}"]\n')
    assert read_toml(path, {"home": "/h"}) == {
        "a": {"url": "sqlite:////h/{service}.db", "list": ["/h"]}
    }


def test_a_variable_alone_takes_the_fields_type(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[inner]\nsize = "{port}"\n')
    assert load("inner", Inner, read_toml(path, {"port": "8080"})) == Inner(8080)


def test_a_missing_or_broken_file_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_toml(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_text("[a\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(tmp_path / "bad.toml", {})


def test_the_environment_overrides_with_the_fields_type() -> None:
    environ = {
        "GRID_JOBS__COUNT": "9",
        "GRID_JOBS__ON": "true",
        "GRID_JOBS__TAGS": "a, b",
        "GRID_JOBS__POLICY": "allow",
        "GRID_JOBS__LIMIT_SECONDS": "0.5",
        "GRID_JOBS__INNER__SIZE": "4",
        "GRID_JOBS__FOLDER": "/tmp/x",
        "GRID_JOBS__MAYBE": "yes",
        "GRID_HOME": "/h",
        "PATH": "/bin",
    }
    source = {"jobs": {"name": "n", "count": 1}}
    found = load("jobs", Settings, overlay(source, environ))
    assert (found.count, found.on, found.tags, found.inner.size) == (9, True, ("a", "b"), 4)
    assert (found.policy, found.limit_seconds) == (Policy.ALLOW, 0.5)
    assert (found.folder, found.maybe) == (Path("/tmp/x"), "yes")
    assert source == {"jobs": {"name": "n", "count": 1}}


@pytest.mark.parametrize(("key", "text"), [("COUNT", "x"), ("ON", "maybe"), ("POLICY", "lax")])
def test_an_override_of_the_wrong_kind_is_an_error(key: str, text: str) -> None:
    source = overlay({"jobs": {"name": "n"}}, {f"GRID_JOBS__{key}": text})
    with pytest.raises(ConfigError, match=f"jobs.{key.lower()}"):
        load("jobs", Settings, source)


def test_an_empty_variable_counts_as_unset() -> None:
    found = Environment.read({"GRID_HOME": "", "GRID_PORT": "1"})
    assert (found.home, found.port, found.failpoint) == (None, "1", None)
