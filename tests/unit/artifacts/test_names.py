"""Hostile names: refused, or kept byte for byte."""

from __future__ import annotations

import itertools

import pytest

from services.artifacts.domain import (
    artifact_path,
    content_type,
    guess_content_type,
    input_filename,
    kind_word,
)
from services.artifacts.errors import InvalidName

CONTROLS = [chr(code) for code in (*range(32), *range(127, 160))]
REORDERING = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]
SEPARATORS = ["\u2028", "\u2029"]
STEPS = ["../", "a/../", "a/b/../../", "./../", "a/./../../"]
TARGETS = ["etc/passwd", "x", ".ssh/authorized_keys", "artifacts/../x"]

HOSTILE_ANYWHERE = [
    "",
    ".",
    "..",
    *[f"a{letter}b" for letter in (*CONTROLS, *REORDERING, *SEPARATORS)],
    *[f"{letter}" for letter in CONTROLS[:32]],
    *[step + target for step, target in itertools.product(STEPS, TARGETS)],
    "..\\..\\windows\\system32",
    "a\\b",
    "C:\\x",
    "/etc/passwd",
    "//etc/passwd",
    "/",
    "a/..",
    "a/b/..",
    "x" * 256,
    "é" * 128,
    "txt\u202eexe.",
    "\x1b[2Jclear",
    "\x1b]8;;http://evil\x07link",
    "a\x00.png",
    "a\r\nSet-Cookie: x",
]
# These have more than one part, so they can be artifacts and no inputs.
SEVERAL_PARTS = ["a/b", "a//b", "./a", "a/./b", "weights/epoch-1/model.bin"]
HARMLESS = [
    "audio.ogg",
    "a b.txt",
    "..hidden",
    "a..b",
    "...",
    ".env",
    "-rf",
    "$(id)",
    "`id`",
    "<script>.html",
    "'; drop table inputs; --",
    'quote".txt',
    "%2e%2e%2fetc",
    "日本語.txt",
    "naïve.csv",
    "👩‍👩‍👧.png",
    "a:b",
    "x" * 255,
]


def test_the_table_is_large() -> None:
    assert len({*HOSTILE_ANYWHERE}) >= 120
    assert len({*HOSTILE_ANYWHERE, *artifact_only()}) >= 200


def artifact_only() -> list[str]:
    """Bad as a path, apart from what is bad as a name."""
    deep = ["d/" * depth + "f" for depth in range(16, 40)]
    inside = [f"d/{letter}/f" for letter in CONTROLS]
    return [*deep, *inside, "a/", "a/.", "./", "/a", f"a/{'x' * 256}", "p/" * 600, "a/..", "a/b\\c"]


@pytest.mark.parametrize("text", HOSTILE_ANYWHERE)
def test_hostile_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName) as refused:
        input_filename(text)
    assert refused.value.reason == "INVALID_REQUEST"
    with pytest.raises(InvalidName):
        artifact_path(text)


@pytest.mark.parametrize("text", artifact_only())
def test_hostile_path_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        artifact_path(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_odd_but_harmless_name_is_kept(text: str) -> None:
    assert input_filename(text) == text
    assert artifact_path(text) == text
    assert artifact_path(f"folder/{text}") == f"folder/{text}"


@pytest.mark.parametrize("text", SEVERAL_PARTS)
def test_input_has_one_part(text: str) -> None:
    with pytest.raises(InvalidName):
        input_filename(text)


def test_path_is_normalised_and_stays_so() -> None:
    for text, wanted in {"./a": "a", "a//b": "a/b", "a/./b": "a/b", "././a/b.c": "a/b.c"}.items():
        assert artifact_path(text) == wanted
        assert artifact_path(wanted) == wanted


def test_limits_hold_to_the_byte() -> None:
    assert artifact_path("d/" * 15 + "f")
    longest = "/".join(["x" * 255, "x" * 255, "x" * 255, "x" * 255])
    assert artifact_path(longest) == longest
    with pytest.raises(InvalidName):
        artifact_path(longest + "/yy")


@pytest.mark.parametrize("text", ["text/plain; charset=utf-8", "application/json", "audio/ogg"])
def test_content_type_is_kept(text: str) -> None:
    assert content_type(text) == text


@pytest.mark.parametrize("text", ["text", "text/plain\r\nX: y", "text/plain; é", "/", "a/b c", " "])
def test_content_type_that_could_break_a_header_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        content_type(text)


def test_defaults() -> None:
    assert content_type("") == "application/octet-stream"
    assert kind_word("") == "input"
    assert kind_word("dataset") == "dataset"
    with pytest.raises(InvalidName):
        kind_word("a\nb")


def test_type_follows_the_ending_alone() -> None:
    told = {
        "transcript.txt": "text/plain",
        "output.json": "application/json",
        "a/b/c.csv": "text/csv",
        "model.tar.gz": "application/gzip",
        "model": "application/octet-stream",
        "page.html": "text/html",
        "strange.qqq": "application/octet-stream",
    }
    assert {name: guess_content_type(name) for name in told} == told
