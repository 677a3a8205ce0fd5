"""The gateway over the real contracts: routes, README, description, error catalogue."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from gateway import contracts, docs_page
from gateway.builtin import VERSION
from gateway.describe import EXAMPLES, describe
from gateway.errors import STATUS_BY_CODE, STATUS_BY_REASON
from gateway.transcoder.decode import Decoders, new_message
from gateway.transcoder.encode import Encoders
from gateway.transcoder.errors import Statuses
from gateway.transcoder.paths import Router
from gateway.transcoder.rules import Route
from libs.errors import KINDS, Code, GridError, Unprocessable
from libs.rpc.validate import violations

ROOT = Path(__file__).resolve().parents[3]
ROUTES = contracts.public_routes()
STATUSES = Statuses(STATUS_BY_REASON, STATUS_BY_CODE)

# notes.md, "Error table, complete".
CONTRACT = {
    400: {"INVALID_REQUEST", "INVALID_EXPECTED_ARTIFACT"},
    401: {"UNAUTHORIZED"},
    402: {"INSUFFICIENT_FUNDS"},
    403: {"FORBIDDEN"},
    404: {"NOT_FOUND", "JOB_INPUT_NOT_FOUND"},
    409: {"CONFLICT", "JOB_INPUT_NOT_READY", "ARTIFACT_NOT_READY"},
    422: {
        "CPU_ONLY_WORKLOAD_UNSUPPORTED",
        "ACCELERATOR_REQUIREMENT_UNSPECIFIED",
        "JOB_SCREENING_BLOCKED",
    },
    429: {"USER_CONCURRENT_LIMIT", "JOB_RATE_LIMITED", "QUEUE_SATURATED"},
    500: {"INTERNAL_ERROR"},
    503: {"MAINTENANCE_ACTIVE", "JOB_INPUTS_UNAVAILABLE", "ARTIFACTS_UNAVAILABLE"},
}


def test_the_contracts_errors_have_the_contracts_status() -> None:
    for status, reasons in CONTRACT.items():
        for reason in reasons:
            assert STATUS_BY_REASON[reason] == status


@pytest.mark.parametrize("code", list(Code))
def test_every_class_of_error_has_a_status(code: Code) -> None:
    error = GridError("x", reason="A_REASON_NOBODY_PLACED")
    error.code = code
    assert 400 <= STATUSES.of(error) < 600


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind is not Unprocessable])
def test_every_default_reason_is_placed_or_follows_its_class(kind: type[GridError]) -> None:
    error = kind("x")
    assert STATUSES.of(error) == STATUS_BY_REASON.get(kind.reason, STATUS_BY_CODE[kind.code])


def reasons_of_services() -> list[tuple[str, type[GridError]]]:
    found = []
    for file in sorted((ROOT / "services").glob("*/errors.py")):
        module = import_module(f"services.{file.parent.name}.errors")
        found += [
            (file.parent.name, each)
            for each in vars(module).values()
            if isinstance(each, type) and issubclass(each, GridError)
            if each.__module__ == module.__name__
        ]
    return found


@pytest.mark.parametrize(("service", "error"), reasons_of_services())
def test_every_reason_of_a_service_has_a_fitting_status(
    service: str, error: type[GridError]
) -> None:
    by_code = STATUS_BY_CODE[error.code]
    status = STATUS_BY_REASON.get(error.reason, by_code)
    assert (status >= 500) == (by_code >= 500), f"{service}: {error.reason} blames the other side"
    if issubclass(error, Unprocessable):
        assert error.reason in STATUS_BY_REASON, f"{service}: {error.reason} has no status"


def test_the_readme_lists_every_route() -> None:
    row = re.compile(r"^\| ([A-Z]+ /v1\S*) \| (\w+\.\w+) \| (\w+) \| (.+) \|$", re.MULTILINE)
    listed = {
        found[0]: found[1:3] for found in row.findall((ROOT / "gateway/README.md").read_text())
    }
    wanted = {
        f"{route.verb} {route.path}": (
            f"{route.method.containing_service.name}.{route.method.name}",
            contracts.owner(route),
        )
        for route in ROUTES
    }
    assert listed == wanted


def test_every_route_compiles_and_is_found() -> None:
    decoders, encoders = Decoders(), Encoders()
    router: Router[Route] = Router()
    for route in ROUTES:
        decoders.of(route.method.input_type)
        encoders.of(route.method.output_type)
        router.add(route.verb, route.template, route)
    for route in ROUTES:
        path = re.sub(r"\{[^}]*\}", "x1", route.path)
        match = router.find(path)
        assert match is not None
        assert match.targets[route.verb][1] is route


def test_the_description_is_valid_and_complete() -> None:
    found = describe(ROUTES, contracts.comments(), STATUSES)
    validate(found)
    for route in ROUTES:
        operation = found["paths"][route.path][route.verb.lower()]
        assert operation["summary"], f"{route.rpc} has no comment"
        answers = operation["responses"]
        assert str(route.success_status) in answers
        assert {"500", "503"} <= set(answers)
        scopes = {scope for each in operation["security"] for scope in each["apiKey"]}
        assert scopes == route.scopes
        assert bool(operation["security"]) != route.public
        assert "X-Request-Id" in answers[str(route.success_status)]["headers"]
        if not route.public:
            assert "401" in answers
        if route.body:
            assert {"400", "413", "415"} <= set(answers)


def test_refusals_named_in_comments_are_described() -> None:
    found = describe(ROUTES, contracts.comments(), STATUSES)
    answers: dict[str, Any] = found["paths"]["/v1/jobs"]["post"]["responses"]
    assert "INSUFFICIENT_FUNDS" in answers["402"]["description"]
    assert "IDEMPOTENCY_KEY_REUSED" in answers["422"]["description"]


@pytest.mark.parametrize("route", [route for route in ROUTES if route.body])
def test_examples_are_accepted(route: Route) -> None:
    example = EXAMPLES[route.method.name]
    unknown: list[str] = []
    request = route.method.input_type
    kind = request if route.body == "*" else request.fields_by_name[route.body].message_type
    assert kind is not None
    decoders = Decoders(lambda message, count: unknown.append(message))
    message = new_message(kind)()
    decoders.of(kind)(message, example, 1)
    assert not unknown
    assert not violations(message)


def test_no_secret_is_described_in_a_reply() -> None:
    found = describe(ROUTES, contracts.comments(), STATUSES)
    for name, schema in found["components"]["schemas"].items():
        if name.endswith(("View", "Response")):
            assert "callback_auth_token" not in schema.get("properties", {})


def test_the_page_has_every_route_and_no_script() -> None:
    found = describe(ROUTES, contracts.comments(), STATUSES)
    page = docs_page.render(found).decode()
    for route in ROUTES:
        assert route.path in page
    assert "<script" not in page
    assert " style=" not in page
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links <= set(re.findall(r'id="([^"]+)"', page))


def test_a_newcomer_finds_a_first_job_before_the_routes_and_jobs_before_the_rest() -> None:
    found = describe(ROUTES, contracts.comments(), STATUSES)
    names = [tag["name"] for tag in found["tags"]]
    assert names == ["Jobs", "Logs", "Artifacts", "Inputs", "Billing"]
    used = {
        tag for item in found["paths"].values() for each in item.values() for tag in each["tags"]
    }
    assert used == {*names, "Gateway"}
    main = docs_page.render(found).decode().partition("<main")[2]
    assert main.index("<pre><code>. .grid/credentials.env\nJOB_ID=") < main.index("<h2>Jobs</h2>")
    assert "curl -sSN \\\n" in main.partition("logs/live</h3>")[2]


def test_the_page_escapes_what_it_shows() -> None:
    found = describe(ROUTES, contracts.comments(), STATUSES)
    found["info"]["description"] = "<script>alert(1)</script> `<b>`"
    page = docs_page.render(found).decode()
    assert "<script>" not in page
    assert "<code>&lt;b&gt;</code>" in page


def test_the_version_is_the_projects() -> None:
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()


def test_a_missing_image_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(contracts.NotBuilt, match="make proto"):
        contracts.comments(tmp_path / "none.binpb")
