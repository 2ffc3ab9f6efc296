"""What the API answers, as values. Moments on the wire are microseconds since 1970-01-01 UTC."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_wire(moment: datetime) -> int:
    """Microseconds since 1970 of a moment with a time zone.

    Raises:
        ValueError: the moment has no time zone, so it could be meant in two ways.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: give datetime.now(timezone.utc) + …, or .astimezone()")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_wire(moment: int | None) -> datetime | None:
    """The moment, in UTC."""
    return None if moment is None else _EPOCH + timedelta(microseconds=moment)


class State(str, enum.Enum):
    """How far a warm-up is. READY and PARTIAL follow from what the site's own store counted."""

    QUEUED = "QUEUED"
    PLANNED = "PLANNED"
    MOVING = "MOVING"
    PARTIAL = "PARTIAL"
    READY = "READY"
    DEGRADED = "DEGRADED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def can_begin(self) -> bool:
        """Whether the job has what it asked for."""
        return self in (State.READY, State.PARTIAL)

    @property
    def is_over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self in (State.FAILED, State.CANCELLED, State.EXPIRED)


@dataclass(frozen=True)
class Failures:
    """Moves of one warm-up that failed for one reason."""

    why: str
    moves: int
    last_path: str
    last_at: datetime | None


@dataclass(frozen=True)
class Starts:
    """When a job starts, where that is not certain: one start in ten is before `p10`, one in ten after `p90`."""

    p10: datetime
    p50: datetime
    p90: datetime


@dataclass(frozen=True)
class Warmup:
    """A warm-up. `cost` is money, `slack_s` seconds (below zero it is late), sizes are bytes."""

    id: str
    state: State
    why: str | None
    volume: str
    paths: list[str]
    site: str
    label: str
    required_bytes: int | None
    required_files: int | None
    resident_bytes: int
    moved_bytes: int
    deduplicated_bytes: int
    failures: list[Failures]
    plan: str | None
    asked_at: datetime | None
    ready_at: datetime | None
    eta_p50: datetime | None
    eta_p90: datetime | None
    slack_s: float | None
    cost: float | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Warmup:
        """From the API's JSON."""
        request = body["request"]
        return cls(
            id=body["id"],
            state=State(body["state"]),
            why=body.get("why"),
            volume=request["volume"],
            paths=list(request["paths"]),
            site=request["site"],
            label=request.get("label", ""),
            required_bytes=body.get("required_bytes"),
            required_files=body.get("required_files"),
            resident_bytes=body["resident_bytes"],
            moved_bytes=body.get("moved_bytes", 0),
            deduplicated_bytes=body.get("deduplicated_bytes", 0),
            failures=[
                Failures(f["why"], f["moves"], f["last_path"], from_wire(f["last_at"])) for f in body.get("failures", ())
            ],
            plan=body.get("plan"),
            asked_at=from_wire(body["asked_at"]),
            ready_at=from_wire(body.get("ready_at")),
            eta_p50=from_wire(body.get("eta_p50")),
            eta_p90=from_wire(body.get("eta_p90")),
            slack_s=body.get("slack_s"),
            cost=body.get("cost"),
        )


@dataclass(frozen=True)
class SiteAdvice:
    """What it means to run at one site. Times are seconds, `cost` and `price` money, sizes bytes."""

    site: str
    possible: bool
    rule: str | None
    missing_bytes: int
    ready_p50_s: float
    ready_p90_s: float
    cost: float
    stall_now_s: float
    free_accelerators: int | None
    price: float
    reason: str


@dataclass(frozen=True)
class Advice:
    """Candidates, the best first. If not `complete`, there may be more files than are known."""

    files: int
    bytes: int
    complete: bool
    sites: list[SiteAdvice]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Advice:
        """From the API's JSON."""
        names = SiteAdvice.__dataclass_fields__
        sites = [SiteAdvice(**{name: site.get(name) for name in names}) for site in body["sites"]]
        return cls(files=body["files"], bytes=body["bytes"], complete=body["complete"], sites=sites)


@dataclass(frozen=True)
class Announced:
    """An order that was taken: the forecast that says it, and how many of its files are not known.

    ``next`` is the ``skip`` of the next part, where a sampler's order has more files than one announcement takes.
    """

    forecast: str
    files: int
    bytes: int
    unknown: int
    next: int | None = None
