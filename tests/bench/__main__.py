"""`make bench`: the grid's figures beside a named peer or limit measured in the same run."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import platform

import uvloop

# Modules with a `main()` that prints its own figures.
PARTS = ("gateway_overhead", "rpc_overhead", "limits_db", "planner", "ledger", "sandbox_start")


def main() -> None:
    """Runs all parts, or those named."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["jobs", *PARTS, []], help="default: all")
    parser.add_argument("--jobs", type=int, default=400, help="jobs of one throughput round")
    parser.add_argument("--singles", type=int, default=30, help="jobs of the latency figure")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, A B A B")
    options = parser.parse_args()
    chosen = options.parts or ["jobs", *PARTS]
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name in chosen:
        print(f"\n== {name}")
        if name == "jobs":
            from tests.bench import jobs

            uvloop.run(jobs.measure(options.jobs, options.singles, options.rounds))
        else:
            outcome = importlib.import_module(f"tests.bench.{name}").main()
            if asyncio.iscoroutine(outcome):
                uvloop.run(outcome)


if __name__ == "__main__":
    main()
