"""The operator as Airflow's own classes run it: deferred in the worker, waited for in a loop as the triggerer has it."""

import asyncio
import os
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow import exceptions as airflow_exceptions

from foretide.airflow import WarmOperator, WarmupTrigger


@pytest.fixture
def environment(served, monkeypatch):
    address, token, _ = served
    monkeypatch.setenv("FORETIDE_CONTROL", address)
    monkeypatch.setenv("FORETIDE_TOKEN", token)


def context(run: str) -> dict:
    return {"ti": SimpleNamespace(dag_id="nightly", task_id="warm", run_id=run, map_index=-1)}


def operator(**how) -> WarmOperator:
    wanted = {"volume": "data", "site": "gpu"} | how
    return WarmOperator(task_id="warm", wanted=wanted, timeout=timedelta(seconds=20))


def deferred(task: WarmOperator, run: str):
    with pytest.raises(airflow_exceptions.TaskDeferred) as raised:
        task.execute(context(run))
    return raised.value


async def first(trigger: WarmupTrigger) -> dict:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


def again(trigger: WarmupTrigger) -> WarmupTrigger:
    """As the triggerer makes it from Airflow's database."""
    path, arguments = trigger.serialize()
    assert path == "foretide.airflow.WarmupTrigger" and os.environ["FORETIDE_TOKEN"] not in str(arguments)
    return WarmupTrigger(**arguments)


def test_a_task_waits_without_a_worker_until_its_data_is_there(environment, client, served):
    _, _, agent = served
    task = operator(label="nightly")
    wait = deferred(task, "manual 2026-11-25")
    assert deferred(task, "manual 2026-11-25").trigger.warmup == wait.trigger.warmup, "a retry asks for the same"

    async def ready() -> dict:
        waiting = asyncio.create_task(first(again(wait.trigger)))
        await asyncio.sleep(0.5)
        assert not waiting.done(), "nobody has counted its bytes"
        census = {"warmup": wait.trigger.warmup, "resident_files": 20, "resident_bytes": 10**9}
        report = {"node": "gpu-2", "site": "gpu", "sequence": int(time.time()), "outcomes": [], "census": [census], "resident_bytes": 10**9, "capacity_bytes": 10**10}
        await asyncio.to_thread(lambda: agent.post("/v1/agent/outcomes", json=report).raise_for_status())
        return await waiting

    event = asyncio.run(ready())
    assert event["state"] == "READY"
    assert getattr(task, wait.method_name)(context("x"), event) == wait.trigger.warmup
    client.release(wait.trigger.warmup)


def test_what_fails_fails_the_task_or_lets_it_run_cold(environment):
    wait = deferred(operator(globs=["*.none"]), "fails")
    event = asyncio.run(first(again(wait.trigger)))
    assert event["state"] == "FAILED"
    with pytest.raises(airflow_exceptions.AirflowException, match="no files"):
        operator().resume(context("x"), event)
    assert operator(on_unready="run_cold").resume(context("x"), event) == wait.trigger.warmup


def test_a_trigger_ends_with_its_time_and_with_a_control_plane_that_is_gone(environment, monkeypatch):
    late = asyncio.run(first(WarmupTrigger("no-such", time.time() + 30)))
    assert late["state"] is None and "no-such" in late["why"], "a problem that stays is not waited for"
    monkeypatch.setenv("FORETIDE_CONTROL", "http://127.0.0.1:9")
    gone = asyncio.run(first(WarmupTrigger("w", time.time() + 1)))
    assert gone["state"] is None and "no answer" in gone["why"]
    with pytest.raises(airflow_exceptions.AirflowException, match="not known"):
        operator().resume(context("x"), gone)
