"""Path templates and the router, against a plain search through all templates."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transcoder.paths import Router, Template

PARTS = st.sampled_from(["a", "b", "jobs", "estimate", "{x}", "{y}"])
PATHS = st.lists(PARTS, min_size=1, max_size=4)


def literal_first(template: Template) -> tuple[int, ...]:
    """Sorts templates as the router prefers them: literals before parameters, left to right."""
    return tuple(0 if part not in ("*", "**") else 1 for part in template.parts)


def pattern(template: Template) -> re.Pattern[str]:
    inner = "/".join("[^/]+" if part == "*" else re.escape(part) for part in template.parts)
    return re.compile("/" + inner)


@given(
    st.lists(PATHS, min_size=1, max_size=12),
    st.lists(st.sampled_from(["a", "b", "jobs", "estimate", "zzz"]), min_size=1, max_size=4),
)
def test_the_router_agrees_with_a_plain_search(paths: list[list[str]], wanted: list[str]) -> None:
    router: Router[str] = Router()
    templates: dict[str, Template] = {}
    for parts in paths:
        unnamed = iter("pqrs")
        text = "/" + "/".join(
            f"{{{next(unnamed)}}}" if part.startswith("{") else part for part in parts
        )
        template = Template.parse(text)
        if template.shape not in templates:
            templates[template.shape] = template
            router.add("GET", template, text)
    path = "/" + "/".join(wanted)
    fitting = [each for each in templates.values() if pattern(each).fullmatch(path)]
    match = router.find(path)
    if not fitting:
        assert match is None
    else:
        assert match is not None
        assert match.targets["GET"][1] == min(fitting, key=literal_first).text


def test_a_literal_that_leads_nowhere_gives_way() -> None:
    router: Router[str] = Router()
    router.add("GET", Template.parse("/v1/jobs/estimate/now"), "literal")
    router.add("GET", Template.parse("/v1/jobs/{job_id}/runtime"), "parameter")
    match = router.find("/v1/jobs/estimate/runtime")
    assert match is not None
    assert match.targets["GET"][1] == "parameter"


def test_tails_and_verbs() -> None:
    router: Router[str] = Router()
    router.add("GET", Template.parse("/v1/files/{path=**}"), "tail")
    router.add("GET", Template.parse("/v1/files/{name}"), "one")
    router.add("POST", Template.parse("/v1/jobs/{job_id}:stop"), "verb")
    router.add("GET", Template.parse("/v1/{name=projects/*}/runs"), "deep")
    for path, wanted in (
        ("/v1/files/a/b/c", "tail"),
        ("/v1/files/a", "one"),
        ("/v1/projects/p/runs", "deep"),
    ):
        match = router.find(path)
        assert match is not None
        assert match.targets["GET"][1] == wanted
    match = router.find("/v1/jobs/j1:stop")
    assert match is not None
    assert match.targets["POST"][1] == "verb"
    assert router.find("/v1/jobs/j1:start") is None


@pytest.mark.parametrize("path", ["", "v1", "/v1", "/v1/jobs/", "/v1//jobs", "//", "/v1/jobs/a/b"])
def test_paths_that_are_not_there(path: str) -> None:
    router: Router[str] = Router()
    router.add("GET", Template.parse("/v1/jobs/{job_id}"), "x")
    assert router.find(path) is None


@pytest.mark.parametrize("text", ["v1", "/v1/{", "/v1/{A}", "/v1/{a}b", "/v1/**/x", "/v1/{a=**}/x"])
def test_templates_that_are_wrong(text: str) -> None:
    with pytest.raises(ValueError, match="path"):
        Template.parse(text)


def test_a_path_is_served_once() -> None:
    router: Router[str] = Router()
    router.add("GET", Template.parse("/v1/{a}"), "x")
    router.add("POST", Template.parse("/v1/{a}"), "y")
    with pytest.raises(ValueError, match="served twice"):
        router.add("GET", Template.parse("/v1/{b}"), "z")
