"""Records in which order PyTorch's DataLoader takes a data set, as loaders.json, and what ranks take of one, as ranks.json: run it with any PyTorch that is to be matched."""

import json

import torch
from torch.utils.data import DataLoader, DistributedSampler


def orders(files, seed, before, between, epochs=3, **options):
    """What `DataLoader(shuffle=True)` takes in each epoch, where the program draws `before` numbers first and `between` after each."""
    torch.manual_seed(seed)
    torch.empty(before).uniform_()
    out = []
    for _ in range(epochs):
        out.append([int(i) for i in DataLoader(list(range(files)), shuffle=True, batch_size=None, **options)])
        torch.empty(between).uniform_()
    return {"seed": seed, "files": files, "before": before, "between": between, "epochs": out}


cases = [
    orders(300, 11, 1000, 0),
    orders(300, 18, 1000, 0),
    orders(64, 25, 0, 0),
    orders(100, 42, 5001, 10),
]
with open(__file__.replace(".py", ".json"), "w") as out:
    rows = ",\n".join(json.dumps(row) for row in cases)
    out.write(f'{{"torch": "{torch.__version__}", "cases": [\n{rows}\n]}}\n')


def ranks(files, seed, of, first, count, epochs=3, **options):
    """What `count` ranks of `of` take in turn in each epoch by `DistributedSampler`, from rank `first` on."""
    out = []
    for epoch in range(epochs):
        taken = []
        for rank in range(first, first + count):
            sampler = DistributedSampler(range(files), num_replicas=of, rank=rank, seed=seed, **options)
            sampler.set_epoch(epoch)
            taken.append(list(sampler))
        out.append([file for turn in zip(*taken) for file in turn])
    return {"seed": seed, "files": files, "of": of, "first": first, "ranks": count, "epochs": out}


dealt = [
    ranks(600, 0, 2, 1, 1),
    ranks(601, 42, 8, 7, 1, epochs=5),
    ranks(2000, 3, 16, 8, 8),
    ranks(1003, 0, 6, 2, 1, drop_last=True),
    ranks(3000, 17, 64, 63, 1, epochs=4),
]
with open(__file__.replace("loaders.py", "ranks.json"), "w") as out:
    rows = ",\n".join(json.dumps(row) for row in dealt)
    out.write(f'{{"torch": "{torch.__version__}", "cases": [\n{rows}\n]}}\n')
