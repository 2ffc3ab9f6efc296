"""Ray: where a job should run, said before its placement group is made, and its data there before it starts.

A node says at which site it is by a custom resource, ``ray start --resources '{"site:gpu-west": 1}'``; a task or actor
that wants a hair of that resource runs there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from foretide.client import Client
from foretide.values import SiteAdvice, Warmup

#: A custom resource of a node with this prefix names its site.
SITE = "site:"
#: What a task takes of it: so little that any number of tasks fits.
SITE_SHARE = 0.0001


class NoSiteError(Exception):
    """No site of the cluster can take the job; the message says why for each."""


@dataclass(frozen=True)
class Placement:
    """Where a job should run.

    Attributes:
        site: the best site that has the accelerators.
        advice: what it means to run there.
        others: the other candidates, the best first.
    """

    site: str
    advice: SiteAdvice
    others: list[SiteAdvice]

    @property
    def resources(self) -> dict[str, float]:
        """For ``.options(resources=…)`` of a task or actor, or a bundle of a placement group."""
        return {SITE + self.site: SITE_SHARE}


def sites() -> dict[str, float]:
    """The accelerators (``GPU``) of each site of the cluster that are not taken now.

    What is taken is known of the whole cluster only, so a site that shares the cluster with others is believed to have as
    many free as its nodes have, at most as many as the cluster has free.
    """
    free = ray.available_resources().get("GPU", 0.0)
    found: dict[str, float] = {}
    for node in ray.nodes():
        for name in node["Resources"] if node["Alive"] else ():
            if name.startswith(SITE):
                site = name.removeprefix(SITE)
                found[site] = found.get(site, 0.0) + node["Resources"].get("GPU", 0.0)
    return {site: min(gpus, free) for site, gpus in found.items()}


def place(client: Client, *, gpus: float = 0.0, **selection: Any) -> Placement:
    """The best site of the cluster for a job that reads this and wants so many accelerators.

    Args:
        client: the control plane.
        gpus: accelerators that the job wants in all.
        selection: which data, as :meth:`foretide.Client.advise` takes it.

    Raises:
        NoSiteError: no node names a site, or none of them can take the job.
        ForetideError: something named is not there, or there was no answer.
    """
    here = sites()
    if not here:
        raise NoSiteError(f"no node of the cluster names its site: start it with --resources '{{\"{SITE}NAME\": 1}}'")
    told = client.advise(sites=sorted(here), free_accelerators={s: int(n) for s, n in here.items()}, **selection)
    fit = [s for s in told.sites if s.possible and here[s.site] >= gpus]
    if not fit:
        short = [f"{s.site}: {s.reason if not s.possible else f'{here[s.site]:g} accelerators'}" for s in told.sites]
        raise NoSiteError("no site can take it; " + "; ".join(short))
    return Placement(fit[0].site, fit[0], [s for s in told.sites if s.site != fit[0].site])


@contextmanager
def warmed(client: Client, *, timeout_s: float, wanted: Mapping[str, Any]) -> Iterator[Warmup]:
    """Data at a site for as long as the block runs: asked for, waited for, released at the end.

    A job whose data is not there when the time is over begins all the same, and reads over the link what is missing: look
    at the state if that matters.

    Args:
        client: the control plane.
        timeout_s: how long is waited.
        wanted: what :meth:`foretide.Client.warm` takes; ``site`` is a placement's.

    Raises:
        ForetideError: it was refused, or there was no answer.
    """
    asked = client.warm(**wanted)
    try:
        yield client.wait(asked.id, timeout_s)
    finally:
        client.release(asked.id)


__all__: Sequence[str] = ["NoSiteError", "Placement", "SITE", "place", "sites", "warmed"]
