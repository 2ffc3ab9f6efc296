"""The control plane's API, call by call."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx

from foretide.values import Advice, Announced, Starts, Warmup, to_wire

#: A call that takes longer is given up, seconds; a wait is added to it.
PATIENCE_S = 15.0
#: The longest that the API holds one answer, seconds.
WAIT_MAX_S = 60
#: Between two tries when the control plane is not there while one waits, seconds.
TRY_AGAIN_S = 2.0


class ForetideError(Exception):
    """The API's problem (RFC 9457), or that there was no answer (status 0).

    Attributes:
        status: the HTTP status.
        kind: which problem, for programs, such as ``/problems/unknown-site``.
        detail: what happened.
        remedy: what can be done.
        rule: the residency rule that forbids it, if one does.
    """

    def __init__(self, status: int, kind: str, detail: str, remedy: str = "", rule: str | None = None) -> None:
        super().__init__(f"{detail}; {remedy}" if remedy else detail)
        self.status, self.kind, self.detail, self.remedy, self.rule = status, kind, detail, remedy, rule


def connection(address: str | None, token: str | None) -> dict[str, Any]:
    """How an HTTP client is made that talks to a control plane; see :class:`Client`.

    Raises:
        ValueError: there is no address or no token.
    """
    address = address or os.environ.get("FORETIDE_CONTROL")
    if not address:
        raise ValueError("no control plane: give its address, or set FORETIDE_CONTROL")
    headers = {"Authorization": f"Bearer {token or _token()}"}
    authority = os.environ.get("FORETIDE_AUTHORITY")
    trusted = ssl.create_default_context(cafile=authority) if authority else True
    return {"base_url": address.rstrip("/"), "headers": headers, "timeout": PATIENCE_S, "verify": trusted}


class Client:
    """One control plane. Safe to use from several threads; close it, or use it in a ``with``."""

    def __init__(self, address: str | None = None, token: str | None = None) -> None:
        """Takes what is absent from ``FORETIDE_CONTROL``, and ``FORETIDE_TOKEN`` or ``FORETIDE_TOKEN_FILE``.

        The certificate of an ``https`` address is checked against the authority in the file ``FORETIDE_AUTHORITY``, or
        those that the system trusts.

        Raises:
            ValueError: there is no address or no token.
        """
        self._http = httpx.Client(**connection(address, token))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def warm(
        self,
        *,
        volume: str | None = None,
        paths: Sequence[str] = (),
        globs: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        workload: str | None = None,
        run: str | None = None,
        site: str | None = None,
        sites: Sequence[str] = (),
        jurisdictions: Sequence[str] = (),
        need_by: datetime | None = None,
        starts: Starts | None = None,
        expire_at: datetime | None = None,
        pin_until: datetime | None = None,
        pin_for: timedelta | None = None,
        priority: int = 0,
        run_after: Sequence[str] = (),
        min_fraction: float | None = None,
        max_bytes: int | None = None,
        max_cost: float | None = None,
        on_unready: Literal["run_cold", "wait", "fail"] | None = None,
        label: str = "",
        labels: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Warmup:
        """Asks for data to be at a site.

        Which: `paths` of `volume` (all of it without them), of these what matches `globs` and carries all `tags`; or what
        `workload` was seen to read; or what `run` has read. Without `site` it goes to the best of `sites`, or of all. Nothing
        moves before each warm-up of `run_after` was READY. `key` names the request: sent twice, it counts once.

        Raises:
            ForetideError: it was refused, or there was no answer.
        """
        moments = {"need_by": need_by, "expire_at": expire_at, "pin_until": pin_until}
        body = _selection(volume, paths, globs, tags, workload, run) | {
            "site": site,
            "sites": list(sites) or None,
            "jurisdictions": list(jurisdictions) or None,
            "starts": None if starts is None else {q: to_wire(getattr(starts, q)) for q in ("p10", "p50", "p90")},
            "pin_for_s": None if pin_for is None else int(pin_for.total_seconds()),
            "priority": priority or None,
            "run_after": list(run_after) or None,
            "on_unready": on_unready,
            "min_fraction": min_fraction,
            "max_bytes": max_bytes,
            "max_cost": max_cost,
            "label": label or None,
            "labels": dict(labels) if labels else None,
            **{name: to_wire(at) for name, at in moments.items() if at is not None},
        }
        headers = {"Idempotency-Key": key} if key else {}
        return Warmup.of(self._call("POST", "/v1/warmups", json=_given(body), headers=headers))

    def status(self, warmup: str) -> Warmup:
        """How far a warm-up is.

        Raises:
            ForetideError: there is none of that id, or no answer.
        """
        return Warmup.of(self._call("GET", f"/v1/warmups/{warmup}"))

    def wait(self, warmup: str, timeout_s: float) -> Warmup:
        """Waits until the job can begin, the warm-up is over, or the time is; answers how it is then.

        A control plane that is away for a while is waited for.

        Raises:
            ForetideError: there is no warm-up of that id, or the time is over without any answer.
        """
        until = time.monotonic() + timeout_s
        while True:
            left = until - time.monotonic()
            hold = max(0, min(WAIT_MAX_S, int(left)))
            try:
                body = self._call("GET", f"/v1/warmups/{warmup}", params={"wait_s": hold}, timeout=PATIENCE_S + hold)
            except ForetideError as error:
                if (error.status and error.status < 500) or left <= TRY_AGAIN_S:
                    raise
                time.sleep(TRY_AGAIN_S)
                continue
            found = Warmup.of(body)
            if found.state.can_begin or found.state.is_over or time.monotonic() >= until - 1:
                return found

    def warmups(self, *, site: str | None = None, states: Sequence[str] = ()) -> Iterator[Warmup]:
        """All warm-ups, newest first.

        Raises:
            ForetideError: there was no answer.
        """
        query = _given({"site": site, "state": ",".join(states) or None, "limit": 1000})
        while True:
            page = self._call("GET", "/v1/warmups", params=query)
            yield from map(Warmup.of, page["items"])
            if page["next"] is None:
                return
            query["cursor"] = page["next"]

    def release(self, warmup: str) -> Warmup:
        """Says that the job has run: the warm-up is over, and its pin ends.

        Raises:
            ForetideError: there is none of that id.
        """
        return Warmup.of(self._call("POST", f"/v1/warmups/{warmup}/release"))

    def cancel(self, warmup: str) -> Warmup:
        """Takes a warm-up back.

        Raises:
            ForetideError: there is none of that id, or it has failed.
        """
        return Warmup.of(self._call("DELETE", f"/v1/warmups/{warmup}"))

    def advise(
        self,
        *,
        volume: str | None = None,
        paths: Sequence[str] = (),
        globs: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        workload: str | None = None,
        run: str | None = None,
        sites: Sequence[str] = (),
        free_accelerators: Mapping[str, int] | None = None,
    ) -> Advice:
        """Where should a job run that reads this? Candidates, the best first.

        Raises:
            ForetideError: something named is not there, or there was no answer.
        """
        body = _selection(volume, paths, globs, tags, workload, run) | {"sites": list(sites) or None, "free_accelerators": dict(free_accelerators or {}) or None}
        return Advice.of(self._call("POST", "/v1/advise", json=_given(body)))

    def announce(
        self,
        paths: Sequence[str] = (),
        *,
        sampler: Mapping[str, Any] | None = None,
        dataset: Mapping[str, Any] | None = None,
        skip: int = 0,
        volume: str,
        site: str,
        files_per_second: float,
        starts_at: datetime | None = None,
        name: str = "",
        workload: str | None = None,
        run: str | None = None,
    ) -> Announced:
        """Tells the exact order in which a job will read files, at most 100,000 at a time.

        Either ``paths`` are the order; or ``sampler`` says by its parameters how the order is drawn, of ``paths`` or of the
        files that ``dataset`` means (the API's ``Sampler`` and ``Dataset``), and what is left out at its beginning is
        ``skip``.

        Raises:
            ForetideError: it was refused, or there was no answer.
        """
        body = {
            "volume": volume,
            "site": site,
            "paths": list(paths),
            "sampler": sampler,
            "dataset": dataset,
            "skip": skip or None,
            "files_per_second": files_per_second,
            "starts_at": None if starts_at is None else to_wire(starts_at),
            "name": name or None,
            "workload": workload,
            "run": run,
        }
        return Announced(**self._call("POST", "/v1/announcements", json=_given(body)))

    def _call(self, method: str, path: str, **how: Any) -> Any:
        try:
            answer = self._http.request(method, path, **how)
        except httpx.HTTPError as error:
            raise ForetideError(0, "/problems/no-answer", f"no answer from {self._http.base_url}: {error}") from error
        if answer.is_success:
            return answer.json()
        raise problem_of(answer)


def _selection(
    volume: str | None,
    paths: Sequence[str],
    globs: Sequence[str],
    tags: Mapping[str, str] | None,
    workload: str | None,
    run: str | None,
) -> dict[str, Any]:
    # A volume alone means all of it; what is tagged, or read by somebody, is known without paths.
    whole = volume is not None and not paths and not globs and not tags
    return {
        "volume": volume,
        "paths": [""] if whole else list(paths) or None,
        "globs": list(globs) or None,
        "tags": dict(tags) if tags else None,
        "workload": workload,
        "run": run,
    }


def _token() -> str:
    if token := os.environ.get("FORETIDE_TOKEN"):
        return token
    if file := os.environ.get("FORETIDE_TOKEN_FILE"):
        return Path(file).read_text(encoding="utf-8").strip()
    raise ValueError("no token: give one, or set FORETIDE_TOKEN or FORETIDE_TOKEN_FILE")


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def problem_of(answer: httpx.Response) -> ForetideError:
    """The error that an answer is."""
    try:
        told = answer.json()
    except ValueError:
        told = {}
    return ForetideError(
        answer.status_code,
        told.get("type", "/problems/unknown"),
        told.get("detail", answer.text[:500]),
        told.get("remedy", ""),
        told.get("rule"),
    )
