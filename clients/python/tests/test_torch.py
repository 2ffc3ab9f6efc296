"""The sampler below PyTorch's own DataLoader, with worker processes."""

import pytest
import torch
from torch.utils import data

from foretide.sampler import AnnouncedSampler


class Files(data.Dataset):
    """Files as a training job opens them."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with open(self.paths[index], "rb") as file:
            return index, len(file.read())


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"img-{n}.jpg" for n in range(20)]
    for n, path in enumerate(paths):
        path.write_bytes(b"x" * (1000 + n))
    return Files([str(path) for path in paths]), str(tmp_path)


def told(agent, name):
    all_of_them = agent.get("/v1/forecasts", params={"reads": "true"}).json()["items"]
    reads = next(f["reads"] for f in all_of_them if name in f["reason"])
    return [int(read["path"].removeprefix("img-").removesuffix(".jpg")) for read in reads]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_in_the_order_that_was_told(client, served, files, workers):
    _, _, agent = served
    dataset, root = files
    name = f"torch job with {workers}"
    generator = torch.Generator().manual_seed(7)
    shuffled = data.RandomSampler(dataset, generator=generator)
    sampler = AnnouncedSampler(shuffled, paths=dataset.paths, root=root, client=client, volume="data", site="gpu", files_per_second=100, name=name)
    loader = data.DataLoader(dataset, sampler=sampler, batch_size=3, num_workers=workers)
    epochs = []
    for epoch in range(2):
        read = [(int(i), int(size)) for indices, sizes in loader for i, size in zip(indices, sizes)]
        assert all(size == 1000 + i for i, size in read)
        epochs.append([i for i, _ in read])
        assert told(agent, f"epoch {epoch} of {name}") == epochs[-1]
    assert sorted(epochs[0]) == list(range(20)) and epochs[0] != epochs[1], "each epoch has its own order"


@pytest.fixture
def in_order(tmp_path):
    """The same files as a listing has them: by name."""
    paths = sorted(str(tmp_path / f"img-{n}.jpg") for n in range(20))
    for path in paths:
        with open(path, "wb") as file:
            file.write(b"x")
    return Files(paths), str(tmp_path)


def read_by(path):
    return int(path.rpartition("img-")[2].removesuffix(".jpg"))


@pytest.mark.parametrize("kind", ["random", "distributed", "sequential"])
def test_of_pytorch_s_own_samplers_the_parameters_are_told(client, served, in_order, monkeypatch, kind):
    _, _, agent = served
    dataset, root = in_order
    samplers = {
        "random": data.RandomSampler(dataset, generator=torch.Generator().manual_seed(2**33 + 7)),
        "distributed": data.distributed.DistributedSampler(dataset, num_replicas=3, rank=1, seed=3),
        "sequential": data.SequentialSampler(dataset),
    }
    announced, announce = [], client.announce
    monkeypatch.setattr(client, "announce", lambda **said: announced.append(said) or announce(**said))
    name = f"told by parameters, {kind}"
    sampler = AnnouncedSampler(samplers[kind], paths=dataset.paths, root=root, client=client, volume="data", site="gpu", files_per_second=100, name=name)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        read = [read_by(dataset.paths[index]) for index in sampler]
        assert told(agent, f"epoch {epoch} of {name}") == read
    assert all("paths" not in said and said["sampler"]["kind"] == kind for said in announced) and len(announced) == 3


def test_an_order_that_is_drawn_otherwise_is_told_as_a_list(client, served, in_order):
    _, _, agent = served
    dataset, root = in_order
    generator = torch.Generator().manual_seed(5)
    torch.rand(1, generator=generator)
    sampler = AnnouncedSampler(data.RandomSampler(dataset, generator=generator), paths=dataset.paths, root=root, client=client, volume="data", site="gpu", files_per_second=100, name="used before")
    read = [read_by(dataset.paths[index]) for index in sampler]
    assert told(agent, "epoch 0 of used before") == read


def test_ranks_tell_their_own_share_of_an_epoch(client, served, files):
    _, _, agent = served
    dataset, root = files
    shares = []
    for rank in range(2):
        name = f"rank {rank}"
        own = data.distributed.DistributedSampler(dataset, num_replicas=2, rank=rank, shuffle=True, seed=3)
        sampler = AnnouncedSampler(own, paths=dataset.paths, root=root, client=client, volume="data", site="gpu", files_per_second=100, name=name)
        sampler.set_epoch(5)
        loader = data.DataLoader(dataset, sampler=sampler, batch_size=4)
        shares.append([int(i) for indices, _ in loader for i in indices])
        assert told(agent, f"epoch 5 of {name}") == shares[-1]
    assert sorted(shares[0] + shares[1]) == list(range(20))
