"""`make openapi` writes what the gateway serves."""

from __future__ import annotations

import json

import pytest
from openapi_spec_validator import validate

from deploy import openapi


def test_the_printed_document_is_valid_and_has_the_routes(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    openapi.main()
    found = json.loads(capfdbinary.readouterr().out)
    validate(found)
    assert "post" in found["paths"]["/v1/jobs"]
