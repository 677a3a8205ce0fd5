"""`make openapi`: the document that a running grid serves at /openapi.json, without a grid."""

from __future__ import annotations

import sys

import orjson

from gateway import contracts
from gateway.describe import describe
from gateway.errors import STATUS_BY_CODE, STATUS_BY_REASON
from gateway.transcoder.errors import Statuses


def main() -> None:
    """Prints it as JSON."""
    statuses = Statuses(STATUS_BY_REASON, STATUS_BY_CODE)
    found = describe(contracts.public_routes(), contracts.comments(), statuses)
    sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
