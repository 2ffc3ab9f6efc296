"""A sampler that tells its order before it gives it to the loader.

It wraps any sampler of indices (PyTorch's, or a plain iterable that can be walked once an epoch) and knows the path
of each index. An epoch's order is drawn once and told in parts, the first before the first batch; then the very same
order is given out. Telling is a favour: if it fails, the epoch goes on as it would have without it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone

from foretide.client import Client, ForetideError

#: Paths told at a time: the API's bound.
PART_FILES = 100_000

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
        self._rate, self._name, self._epoch = files_per_second, name, 0

    def set_epoch(self, epoch: int) -> None:
        """Passed on to a sampler that shuffles by epoch, such as ``DistributedSampler``."""
        self._epoch = epoch
        if hasattr(self._sampler, "set_epoch"):
            self._sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        order = list(self._sampler)
        self._tell(order)
        self._epoch += 1
        return iter(order)

    def _tell(self, order: Sequence[int]) -> None:
        begins = datetime.now(timezone.utc)
        name = f"epoch {self._epoch} of {self._name}" if self._name else f"epoch {self._epoch}"
        for first in range(0, len(order), PART_FILES):
            part = [self._paths[index] for index in order[first : first + PART_FILES]]
            starts_at = begins + timedelta(seconds=first / self._rate)
            try:
                self._client.announce(
                    part,
                    volume=self._volume,
                    site=self._site,
                    files_per_second=self._rate,
                    starts_at=starts_at if first else None,
                    name=name,
                )
            except ForetideError as error:
                _log.warning("the order of this epoch could not be told: %s", error)
                return
