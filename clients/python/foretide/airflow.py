"""Airflow: a task that has data warmed, and holds no worker while it waits.

The operator asks and defers; its trigger waits in the triggerer by the API's long poll, thousands of them in one
process. Address and token come from the environment of worker and triggerer (``FORETIDE_CONTROL``,
``FORETIDE_TOKEN`` or ``FORETIDE_TOKEN_FILE``), so no secret is written into Airflow's database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import httpx

try:
    from airflow.sdk import BaseOperator
except ImportError:  # Airflow 2
    from airflow.models.baseoperator import BaseOperator
from airflow.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from foretide.client import PATIENCE_S, TRY_AGAIN_S, WAIT_MAX_S, Client, connection, problem_of
from foretide.values import State, Warmup


class WarmupTrigger(BaseTrigger):
    """Fires when the job can begin, the warm-up is over, or the time is.

    Its event is ``{"warmup": id, "state": state or None, "why": text or None}``; the state is None if nothing was heard.

    Args:
        warmup: its id.
        until: when the waiting ends, seconds since 1970.
        control: the control plane's address; ``FORETIDE_CONTROL`` if absent.
    """

    def __init__(self, warmup: str, until: float, control: str | None = None) -> None:
        super().__init__()
        self.warmup, self.until, self.control = warmup, until, control

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How the triggerer makes it anew."""
        return "foretide.airflow.WarmupTrigger", {"warmup": self.warmup, "until": self.until, "control": self.control}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Waits; one event."""
        yield TriggerEvent(await self._wait())

    async def _wait(self) -> dict[str, Any]:
        last: dict[str, Any] = {"warmup": self.warmup, "state": None, "why": None}
        async with httpx.AsyncClient(**connection(self.control, None)) as http:
            while True:
                left = self.until - time.time()
                hold = max(0, min(WAIT_MAX_S, int(left)))
                try:
                    answer = await http.get(
                        f"/v1/warmups/{self.warmup}", params={"wait_s": hold}, timeout=PATIENCE_S + hold
                    )
                except httpx.HTTPError as error:
                    last["why"] = f"no answer from the control plane: {error}"
                else:
                    if answer.is_success:
                        found = Warmup.of(answer.json())
                        last = {"warmup": self.warmup, "state": found.state.value, "why": found.why}
                        if found.state.can_begin or found.state.is_over:
                            return last
                    elif answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                        return last | {"why": str(problem_of(answer))}
                if left <= TRY_AGAIN_S:
                    return last
                # An answer that was held tells of a change; any other is asked for again after a while.
                await asyncio.sleep(TRY_AGAIN_S)


class WarmOperator(BaseOperator):
    """Has data at a site before the tasks after it; its result is the warm-up's id.

    All of :meth:`foretide.Client.warm` can be given but `key`: the run of the task is the key, so a retry asks for the
    same. When `timeout` is over, or the warm-up ends otherwise, the task fails; with ``on_unready="run_cold"`` it goes on,
    and what comes after it reads over the link what is missing.

    Args:
        timeout: how long is waited.
        control: the control plane's address; ``FORETIDE_CONTROL`` if absent.
        wanted: what :meth:`foretide.Client.warm` takes.
    """

    template_fields: Sequence[str] = ("wanted",)

    def __init__(
        self, *, wanted: Mapping[str, Any], timeout: timedelta, control: str | None = None, **about_the_task: Any
    ) -> None:
        super().__init__(**about_the_task)
        self.wanted, self.timeout, self.control = dict(wanted), timeout, control

    def execute(self, context: Mapping[str, Any]) -> str:
        """Asks, and waits without a worker."""
        instance = context["ti"]
        key = f"airflow/{instance.dag_id}/{instance.task_id}/{instance.run_id}/{instance.map_index}"
        # A key is printable and without blanks; a run's name may hold anything.
        key = "".join(c if c.isascii() and c.isprintable() and not c.isspace() else "_" for c in key)[:200]
        with Client(self.control) as client:
            warmup = client.warm(**self.wanted, key=key)
        if warmup.state.can_begin:
            return warmup.id
        until = time.time() + self.timeout.total_seconds()
        trigger = WarmupTrigger(warmup.id, until, self.control)
        # The trigger's own end comes first: it says how far the warm-up was.
        self.defer(trigger=trigger, method_name="resume", timeout=self.timeout + timedelta(minutes=5))
        raise AssertionError("defer does not return")

    def resume(self, context: Mapping[str, Any], event: Mapping[str, Any]) -> str:
        """What came of it."""
        state = None if event["state"] is None else State(event["state"])
        if state is not None and state.can_begin:
            return str(event["warmup"])
        said = f"warm-up {event['warmup']} is {event['state'] or 'not known'}"
        why = f"{said}: {event['why']}" if event["why"] else said
        if self.wanted.get("on_unready") == "run_cold":
            self.log.warning("%s; what comes next runs cold", why)
            return str(event["warmup"])
        raise AirflowException(why)
