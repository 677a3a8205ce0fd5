"""Canaries in a job's environment and tokens appear in no topic, log, event, error or file."""

from __future__ import annotations

from pathlib import Path

from tests.support.drains import files_with, records
from tests.support.stack import Stack, stack

ENVIRONMENT = b"canary-environment-5b1f0c"
TOKEN = b"canary-callback-token-77aa"
COMMAND = b"canary-command-9e21"


async def test_canaries_are_nowhere() -> None:
    async with stack(runtime="simulated") as whole:
        job_id = await whole.submit(
            environment={
                "JUNGLEGRID_SIMULATE": "exit=1;stdout=hello",
                "SECRET": ENVIRONMENT.decode(),
            },
            command=["python", "-c", COMMAND.decode()],
            callback_url="https://callback.example/hook",
            callback_auth_token=TOKEN.decode(),
        )
        await whole.finished(job_id)
        await whole.settled(job_id)
        answers = await read_everything(whole, job_id)
        needles = {
            "environment": ENVIRONMENT,
            "callback token": TOKEN,
            "api key": whole.credentials.api_key.encode(),
        }
        for topic, _, payload in records(whole.grid.home):
            found = [name for name, needle in needles.items() if needle in payload]
            assert not found, f"{found} on {topic}"
            assert COMMAND not in payload, f"the command is on {topic}"
        for name, needle in needles.items():
            assert needle.decode() not in answers, f"{name} in an answer"
        home: Path = whole.grid.home
        kept = [
            (file, name)
            for file, name in files_with(home, needles)
            if file != "credentials.env"  # where the user is given the key
        ]
        assert kept == []
        assert files_with(home.parent, needles) == [("g/credentials.env", "api key")]


async def read_everything(whole: Stack, job_id: str) -> str:
    paths = ("", "/runtime", "/events", "/logs", "/artifacts")
    answers = [await whole.api.call("GET", f"/v1/jobs/{job_id}{path}") for path in paths]
    return repr(answers)
