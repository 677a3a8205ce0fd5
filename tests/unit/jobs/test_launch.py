"""What a node is given to run an attempt, and how long its secrets are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from libs.db import Tx
from services.jobs.errors import LaunchRefused
from tests.unit.jobs.world import DRAFT, SECRETIVE, WORKSPACE, World, lost


async def test_launch_has_secrets_mounts_and_our_own_variables(world: World) -> None:
    draft = replace(
        SECRETIVE,
        environment={"TOKEN": "canary", "JUNGLEGRID_JOB_ID": "mine"},
        input_ids=("inp_1",),
        script_ids=("inp_2",),
    )
    job_id = (await world.submit(draft)).job_id
    launch = await world.service.get_launch_spec(job_id, 1, "lease_1", 0)
    assert launch.environment["TOKEN"] == "canary"
    assert launch.environment["JUNGLEGRID_JOB_ID"] == job_id
    assert launch.environment["JUNGLEGRID_ARTIFACTS_DIR"] == "/workspace/artifacts"
    assert [each.mount_path for each in launch.mounts] == [
        "/workspace/inputs/inp_1", "/workspace/scripts/inp_2",
    ]  # fmt: skip
    assert "canary" not in repr(launch)
    assert "signature" not in repr(launch)


@pytest.mark.parametrize("end", ["close", "cancel"])
async def test_the_environment_goes_with_the_end_and_the_token_stays(
    world: World, end: str
) -> None:
    job_id = (await world.submit(SECRETIVE)).job_id

    def kept(tx: Tx) -> tuple[bool, bool]:
        environment, token = world.repository.secrets(tx, WORKSPACE, job_id)
        return environment is not None, token is not None

    await world.open(job_id)
    await world.close(job_id, lost(job_id))
    assert await world.database.read(kept) == (True, True)
    if end == "close":
        await world.run(job_id, attempt=2)
    else:
        await world.service.cancel_job(WORKSPACE, job_id, "")
    assert await world.database.read(kept) == (False, True)
    assert (await world.service.get_callback(job_id)).token == "canary-token"


async def test_launch_is_refused_to_stale_attempts_and_leases(world: World) -> None:
    job_id = (await world.submit(DRAFT)).job_id
    await world.open(job_id)
    await world.service.get_launch_spec(job_id, 1, "lease_1", 0)
    with pytest.raises(LaunchRefused):
        await world.service.get_launch_spec(job_id, 1, "lease_other", 0)
    await world.close(job_id, lost(job_id))
    with pytest.raises(LaunchRefused):
        await world.service.get_launch_spec(job_id, 1, "lease_1", 0)
    await world.service.get_launch_spec(job_id, 2, "lease_2", 0)
    await world.run(job_id, attempt=2)
    with pytest.raises(LaunchRefused):
        await world.service.get_launch_spec(job_id, 2, "lease_2", 0)
