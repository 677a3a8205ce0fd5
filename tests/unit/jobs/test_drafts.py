"""Drafts: every field of the contract, right and wrong, and the error that a submit gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from libs.errors import GridError
from services.jobs.domain.checks import Report, Screening
from services.jobs.domain.draft import CallbackDraft, Draft, Wishes
from services.jobs.domain.inspect import Defaults, Inspection, inspect
from services.jobs.domain.routing import gpu_word, region_word
from services.jobs.domain.vram import GB, required_vram_bytes
from services.jobs.service.refusal import refuse
from tests.unit.jobs.refused import BARE, REFUSED, flat, wish
from tests.unit.jobs.world import DRAFT

STRICT = Defaults("strict", 1000, 1, 7 * GB, 3600, ("xmrig",))
ALLOW = replace(STRICT, cpu_policy="allow")


def codes(draft: Draft, defaults: Defaults = STRICT) -> list[str]:
    return [check.code for check in inspect(draft, defaults).screening.errors]


BAD_ARTIFACTS = ["/etc/passwd", "../x", "/workspace/artifacts", "/workspace/artifacts/../x", " ",
                 "a\nb", "/workspace/artifactsx/y", "."]  # fmt: skip


@pytest.mark.parametrize(("draft", "code", "reason"), [case[1:] for case in REFUSED],
                         ids=[case[0] for case in REFUSED])  # fmt: skip
def test_what_is_refused(draft: Draft, code: str, reason: str) -> None:
    assert code in codes(draft)
    error = refused(draft)
    assert error.reason == reason
    screening = error.details["screening"]
    assert not screening["can_submit"]
    assert screening["status"] == "blocked"
    assert any(check["code"] == code and check["status"] == "failed"
               for check in screening["checks"])  # fmt: skip
    assert error.message


@pytest.mark.parametrize("path", BAD_ARTIFACTS)
def test_artifacts_outside_are_refused(path: str) -> None:
    error = refused(replace(DRAFT, expected_artifacts=(path,)))
    assert error.reason == "INVALID_EXPECTED_ARTIFACT"


def refused(draft: Draft, defaults: Defaults = STRICT) -> GridError:
    with pytest.raises(GridError) as found:
        refuse(inspect(draft, defaults).screening)
    return found.value


def accepted(draft: Draft, defaults: Defaults = STRICT) -> Inspection:
    found = inspect(draft, defaults)
    refuse(found.screening)
    return found


@pytest.mark.parametrize(
    "image",
    [
        "python",
        "python:3.11",
        "pytorch/pytorch:2.4.0-cuda12.1-cudnn9-runtime",
        "localhost:5000/team_a/img--x:V1",
        "Registry.example.com:443/a/b__c/d.e@sha256:" + "a" * 64,
        "nvcr.io/nvidia/cuda:12.4.1-base@sha256:" + "0" * 64,
    ],
)
def test_image_references(image: str) -> None:
    accepted(replace(DRAFT, image=image))


@pytest.mark.parametrize(
    "image",
    [
        "http://x/y",
        "a:b:c",
        "Upper/Case",
        "Python",
        "a//b",
        "a/",
        "a:",
        "x@y",
        "a..b",
        "a@sha256:00",
    ],
)
def test_what_no_registry_would_find_is_no_image(image: str) -> None:
    assert "IMAGE_INVALID" in codes(replace(DRAFT, image=image))


def test_the_message_says_what_to_do() -> None:
    """Many clients show their users error.message and nothing else."""
    for draft in (
        replace(DRAFT, image="a image"),
        replace(DRAFT, command=("x" * 5000,)),
        replace(DRAFT, expected_artifacts=("/etc/passwd",)),
        replace(DRAFT, gpu_required=False, model_size_gb=None),
    ):
        error = refused(draft)
        assert error.details["screening"]["fixes"][0] in error.message
    assert refused(BARE).message.count("Send model_size_gb") == 1


def test_required_fields_are_told_in_the_contract_s_words() -> None:
    message = refused(Draft()).message
    assert message.startswith("name, image, and workload_type are required")


def test_a_wrong_request_comes_before_policy() -> None:
    assert refused(replace(BARE, image="")).reason == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("command", "args", "text", "wanted"),
    [
        (("python", "-c", "print(42)"), (), False, ("python", ("-c", "print(42)"))),
        (("python",), ("-c", "print(42)"), False, ("python", ("-c", "print(42)"))),
        (("python", "-V"), ("ignored",), False, ("python", ("-V",))),
        (("python",), ("-c", "print(42)"), True, ("python", ("-c", "print(42)"))),
        (("my tool",), ("x",), True, ("my tool", ("x",))),
        (("python -c 'print(4 2)'",), (), True, ("python", ("-c", "print(4 2)"))),
        (("",), (), True, ("", ())),
        ((), (), False, ("", ())),
    ],
)
def test_commands(
    command: tuple[str, ...], args: tuple[str, ...], text: bool, wanted: tuple[str, Any]
) -> None:
    draft = replace(DRAFT, command=command, args=args, command_is_text=text)
    spec = accepted(draft).spec
    assert (spec.command, spec.args) == wanted


def test_command_of_4096_characters_is_accepted() -> None:
    accepted(replace(DRAFT, command=("x" * 96,), args=("y" * 4000,)))


def test_artifacts_are_normalised_and_kept_once() -> None:
    sent = ("out.json", "/workspace/artifacts/out.json", "a/../b//c.txt", "/workspace/artifacts/d/")
    spec = accepted(replace(DRAFT, expected_artifacts=sent)).spec
    assert spec.expected_artifacts == (
        "/workspace/artifacts/out.json",
        "/workspace/artifacts/b/c.txt",
        "/workspace/artifacts/d",
    )


def test_callback_in_both_spellings() -> None:
    nested = CallbackDraft("http://localhost:9/x", "nested", {"b": "2"})
    found = accepted(replace(DRAFT, nested_callback=nested))
    assert found.spec.callback is not None
    assert (found.spec.callback.url, found.secrets.callback_token) == (nested.url, "nested")
    both = replace(flat(token="flat"), nested_callback=nested)
    found = accepted(both)
    assert found.spec.callback is not None
    assert (found.spec.callback.url, found.secrets.callback_token) == ("https://a.example", "flat")
    assert found.spec.callback.metadata == (("b", "2"),)


def test_names_with_our_prefix_are_kept_with_a_warning() -> None:
    found = accepted(replace(DRAFT, environment={"JUNGLEGRID_X": "1", "A": "2"}))
    assert found.secrets.environment == {"JUNGLEGRID_X": "1", "A": "2"}
    assert found.screening.status == "warning"


def test_the_first_place_that_gives_a_wish_counts() -> None:
    draft = replace(
        DRAFT,
        wishes=(
            Wishes(gpu_type="NVIDIA L4", region_preference="US East"),
            Wishes(gpu_type="a100", region_mode="strict", price_micros_per_hour_max=5),
            Wishes(gpu_count=2, gpu_vendor="NVIDIA"),
            Wishes(optimize_for="speed", budget_micros=9),
        ),
    )
    spec = accepted(draft).spec
    assert spec.resources.gpu is not None
    assert (spec.resources.gpu.gpu_type, spec.resources.gpu.count) == ("l4", 2)
    assert spec.resources.gpu.vendor == "nvidia"
    assert (spec.constraints.region, spec.constraints.region_strict) == ("us-east", True)
    assert (spec.constraints.price_micros_per_hour_max, spec.budget_micros) == (5, 9)
    assert spec.constraints.optimize_for == "speed"


@pytest.mark.parametrize(
    ("sent", "word"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla_T4", "t4"),
        ("any", ""),
        ("A100 80GB", "a100-80gb"),
    ],
)
def test_gpu_words(sent: str, word: str) -> None:
    assert gpu_word(sent) == word
    assert region_word("  EU_West 1 ") == "eu-west-1"


@pytest.mark.parametrize(
    ("draft", "acceleration", "gpu"),
    [
        (DRAFT, "gpu_required", True),
        (replace(BARE, gpu_required=True), "gpu_required", True),
        (replace(BARE, wishes=(Wishes(min_vram_gb=8.0),)), "gpu_required", True),
        (replace(BARE, wishes=(Wishes(preferred_gpu_family="l4"),)), "gpu_required", True),
        (replace(BARE, image="pytorch/pytorch:2.4.0-cuda12.1-cudnn9"), "gpu_required", True),
        (replace(BARE, image="rocm/pytorch"), "gpu_required", True),
        (replace(BARE, image="nvcr.io/x/y"), "gpu_required", True),
        (replace(BARE, image="tensorflow/tensorflow:latest"), "unspecified", False),
        (BARE, "unspecified", False),
        (replace(DRAFT, gpu_required=False), "cpu_only", False),
    ],
)
def test_classification(draft: Draft, acceleration: str, gpu: bool) -> None:
    found = accepted(draft, ALLOW)
    assert found.classification.acceleration == acceleration
    assert (found.spec.resources.gpu is not None) == gpu
    assert found.classification.reasons


def test_defaults_and_what_overrides_them() -> None:
    spec = accepted(DRAFT).spec
    assert (spec.timeout_seconds, spec.resources.disk_bytes) == (3600, 7 * GB)
    spec = accepted(replace(DRAFT, timeout_seconds=5, disk_gb=1.5)).spec
    assert (spec.timeout_seconds, spec.resources.disk_bytes) == (5, 1_500_000_000)


@pytest.mark.parametrize(
    ("size", "precision", "workload", "batch", "count", "gb"),
    [
        (7, "", "inference", 1, 1, 8.9),
        (7, "int8", "inference", 1, 1, 4.7),
        (7, "fp32", "batch", 1, 1, 17.3),
        (7, "", "inference", 9, 1, 11.7),
        (7, "", "inference", 10_000, 1, 14.5),
        (14, "", "training", 1, 1, 134.9),
        (14, "", "training", 1, 2, 67.7),
        (14, "", "fine-tuning", 1, 1, 23.18),
        (0, "", "inference", 1, 1, 0),
    ],
)
def test_vram(
    size: float, precision: str, workload: str, batch: int, count: int, gb: float
) -> None:
    found = required_vram_bytes(size, precision, workload, batch, count)
    assert found == pytest.approx(gb * GB, abs=2)


def test_min_vram_raises_and_never_lowers() -> None:
    for asked, gb in ((40.0, 40.0), (0.5, 1.7)):
        gpu = accepted(wish(min_vram_gb=asked)).spec.resources.gpu
        assert gpu is not None
        assert gpu.memory_bytes_min == gb * GB


def test_a_clean_draft_says_so() -> None:
    screening = inspect(DRAFT, STRICT).screening
    assert [check.code for check in screening.checks] == ["SCREENING_PASSED"]
    assert screening.status == "passed"
    assert Screening(()).can_submit


def test_broken_field_rules_become_findings() -> None:
    report = Report()
    report.blame([("precision", "value must be in list")])
    assert not report.screening().can_submit


def test_a_draft_with_numbers_that_cannot_be_is_still_inspected() -> None:
    """Estimates get here with everything that a submit's field rules would have stopped."""
    found = inspect(
        replace(
            DRAFT,
            model_size_gb=float("nan"),
            disk_gb=float("inf"),
            batch_size=-5,
            timeout_seconds=-1,
            wishes=(Wishes(gpu_count=-3, min_vram_gb=float("inf")),),
        ),
        STRICT,
        (("model_size_gb", "must be finite"),),
    )
    assert not found.screening.can_submit
