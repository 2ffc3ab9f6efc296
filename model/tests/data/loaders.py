"""Records in which order PyTorch's DataLoader takes a data set, as loaders.json: run it with any PyTorch that is to be matched."""

import json

import torch
from torch.utils.data import DataLoader


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
