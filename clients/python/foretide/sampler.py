"""A sampler that tells its order before it gives it to the loader.

It wraps any sampler of indices (PyTorch's, or a plain iterable that can be walked once an epoch) and knows the path
of each index. An epoch's order is drawn once and told, the first part before the first batch; then the very same
order is given out. Telling is a favour: if it fails, the epoch goes on as it would have without it.

Of PyTorch's own samplers the parameters are told, some hundred bytes, if the paths are all files of a directory in the
order of their names; the control plane draws the order again. It checks how the order begins, and that it knows the same
files; if not, and for every other sampler, the order is told as a list.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from foretide.client import Client, ForetideError
from foretide.values import Announced

#: Paths told at a time: the API's bound.
PART_FILES = 100_000
#: How much of an order is told beside a sampler's parameters, so that one that is drawn otherwise is noticed.
BEGINS = 100
#: The API's answer where what it draws, or which files it knows, is not what the job means.
CONFLICT = 409

_log = logging.getLogger("foretide")


class AnnouncedSampler:
    """Gives out what `sampler` gives, and tells it first.

    Args:
        sampler: indices of one epoch, anew for each ``iter()``.
        paths: for each index its file, as the job opens it.
        root: the volume's root in these paths, such as its mount point.
        client: the control plane.
        volume: the volume's name.
        site: where the job runs.
        files_per_second: how many files the job reads in a second while it does not wait.
        name: the job's name, for people.
    """

    def __init__(
        self,
        sampler: Iterable[int],
        *,
        paths: Sequence[str],
        root: str,
        client: Client,
        volume: str,
        site: str,
        files_per_second: float,
        name: str = "",
    ) -> None:
        self._sampler = sampler
        self._paths = [os.path.relpath(path, root) for path in paths]
        outside = next((path for path in self._paths if path.startswith("..")), None)
        if outside is not None:
            raise ValueError(f"{outside!r} is not below the root {root!r}")
        self._client, self._volume, self._site = client, volume, site
        self._rate, self._name, self._epoch, self._drawn = files_per_second, name, 0, 0
        self._dataset = dataset_of(self._paths)

    def set_epoch(self, epoch: int) -> None:
        """Passed on to a sampler that shuffles by epoch, such as ``DistributedSampler``."""
        self._epoch = epoch
        if hasattr(self._sampler, "set_epoch"):
            self._sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        order = list(self._sampler)
        try:
            self._tell(order)
        except ForetideError as error:
            _log.warning("the order of this epoch could not be told: %s", error)
        self._epoch += 1
        self._drawn += 1
        return iter(order)

    def _tell(self, order: Sequence[int]) -> None:
        begins = datetime.now(timezone.utc)
        parameters = parameters_of(self._sampler, self._drawn)
        if parameters is None or self._dataset is None or not self._tell_parameters({**parameters, "begins": order[:BEGINS]}, begins):
            for first in range(0, len(order), PART_FILES):
                part = [self._paths[index] for index in order[first : first + PART_FILES]]
                self._announce(begins, first, paths=part)

    def _tell_parameters(self, parameters: Mapping[str, Any], begins: datetime) -> bool:
        """Whether the control plane draws the same order of the same files."""
        skip: int | None = 0
        try:
            while skip is not None:
                skip = self._announce(begins, skip, sampler=parameters, dataset=self._dataset, skip=skip).next
        except ForetideError as error:
            if error.status != CONFLICT:
                raise
            _log.info("the order is told as a list: %s", error)
            return False
        return True

    def _announce(self, begins: datetime, first: int, **what: Any) -> Announced:
        return self._client.announce(
            volume=self._volume,
            site=self._site,
            files_per_second=self._rate,
            starts_at=begins + timedelta(seconds=first / self._rate) if first else None,
            name=f"epoch {self._epoch} of {self._name}" if self._name else f"epoch {self._epoch}",
            **what,
        )


def parameters_of(sampler: object, drawn: int) -> dict[str, Any] | None:
    """The parameters of a sampler of PyTorch's from which ``drawn`` orders were drawn before; none of any other.

    Args:
        sampler: what gives out indices. Of classes that are derived from PyTorch's nobody knows what they draw.
        drawn: epochs that its generator has served.
    """
    kind = type(sampler)
    if not kind.__module__.startswith("torch.utils.data."):
        return None
    said: Any = sampler
    if kind.__name__ == "SequentialSampler":
        return {"kind": "sequential"}
    if kind.__name__ == "DistributedSampler" and said.seed >= 0:
        return {
            "kind": "distributed",
            "seed": said.seed,
            "epoch": said.epoch,
            "rank": said.rank,
            "world_size": said.num_replicas,
            "shuffle": said.shuffle,
            "drop_last": said.drop_last,
        }
    if kind.__name__ == "RandomSampler" and said.generator is not None:
        if not said.replacement and said.num_samples == len(said.data_source):
            return {"kind": "random", "seed": said.generator.initial_seed(), "epoch": drawn}
    return None


def dataset_of(paths: Sequence[str]) -> dict[str, Any] | None:
    """The data set that these paths are, for the API; none if they are not in its order: by directory, then by name."""
    as_bytes = [os.fsencode(path) for path in paths]
    if not paths or as_bytes != sorted(set(as_bytes), key=os.path.split):
        return None
    below = os.path.commonpath([os.path.dirname(path) for path in paths])
    if not below.isprintable() or "%" in below:
        return None
    digest = hashlib.sha256(b"".join(path + b"\n" for path in as_bytes))
    return {"below": below, "files": len(paths), "sha256": digest.hexdigest()}
