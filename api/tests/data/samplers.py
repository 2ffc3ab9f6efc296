"""Records what PyTorch's own samplers draw, as samplers.json: run it with any PyTorch that is to be matched."""

import hashlib
import json

import torch
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler


def case(sampler, files, order):
    text = ",".join(map(str, order))
    return {"sampler": sampler, "files": files, "draws": len(order), "first": order[:40], "sha256": hashlib.sha256(text.encode()).hexdigest()}


def distributed(files, world_size, rank, seed, epoch, shuffle=True, drop_last=False):
    own = DistributedSampler(range(files), world_size, rank, shuffle, seed, drop_last)
    own.set_epoch(epoch)
    said = {"kind": "distributed", "world_size": world_size, "rank": rank, "seed": seed, "epoch": epoch, "shuffle": shuffle, "drop_last": drop_last}
    return case(said, files, list(own))


def random(files, seed, epochs):
    """One generator for all epochs, by way of a loader, as a job has it."""
    data = list(range(files))
    loader = DataLoader(data, batch_size=None, sampler=RandomSampler(data, generator=torch.Generator().manual_seed(seed)))
    return [case({"kind": "random", "seed": seed, "epoch": epoch}, files, [int(i) for i in loader]) for epoch in range(epochs)]


cases = [
    case({"kind": "sequential"}, 5, list(SequentialSampler(range(5)))),
    *random(20, 7, 3),
    *random(1, 7, 2),
    *random(100_003, 2**40 + 5, 2),
    distributed(20, 2, 0, 3, 5),
    distributed(20, 2, 1, 3, 5),
    distributed(21, 4, 3, 0, 0),
    distributed(21, 4, 3, 0, 0, drop_last=True),
    distributed(3, 8, 7, 11, 2),
    distributed(3, 8, 7, 11, 2, drop_last=True),
    distributed(10, 3, 1, 9, 1, shuffle=False),
    distributed(1_281_167, 64, 17, 42, 90),
]
with open(__file__.replace(".py", ".json"), "w") as out:
    rows = ",\n".join(json.dumps(row) for row in cases)
    out.write(f'{{"torch": "{torch.__version__}", "cases": [\n{rows}\n]}}\n')
