#!/usr/bin/env python3
"""A training job on a real GPU, for `foretide demo --job benches/gpu/train.py`.

ResNet-50 in bf16 learns from a folder of samples: PyTorch's own DataLoader reads whole files in worker processes, in an
order shuffled anew each epoch. A sample's first bytes are its image, its name is its label: what counts here is the way
of the bytes, not what the network becomes. Each batch is trained on in augmented views until the GPU has worked for
`--compute-ms`, so that one data set can stand for lighter and heavier networks.

Prints one line of JSON: accelerator utilisation as MLPerf Storage defines it (GPU time / total time, first step left
out), seconds, and the GPU's name. Knows nothing of Foretide. Needs torch and torchvision.
"""

import argparse
import json
import time
import zlib
from pathlib import Path

STARTED = time.perf_counter()

import torch  # noqa: E402  (its import is part of the time to the first batch)
import torch.nn.functional as F  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision.models import resnet50  # noqa: E402

SIDE = 128  # a sample's image: SIDE x SIDE pixels of three bytes
TRAINED_SIDE = 224
CLASSES = 1000


class Samples(Dataset):
    """All files below a folder: (uint8 image of 3 x SIDE x SIDE, label)."""

    def __init__(self, folder):
        self.paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        path = self.paths[index]
        image = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)[: 3 * SIDE * SIDE]
        return image.reshape(3, SIDE, SIDE), zlib.crc32(path.name.encode()) % CLASSES


def view(images):
    """One augmented view of a batch on the GPU: flipped or not, resized, scaled to [-1, 1]."""
    images = images.to(memory_format=torch.channels_last).float().div_(127.5).sub_(1)
    if torch.rand(()) < 0.5:
        images = images.flip(3)
    return F.interpolate(images, size=TRAINED_SIDE, mode="bilinear", antialias=False)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of samples")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=16, help="loader processes")
    parser.add_argument("--compute-ms", type=float, default=60.0, help="GPU time of a batch")
    return parser.parse_args()


def main():
    options = arguments()
    gpu = torch.device("cuda")
    samples = Samples(options.data)
    loader = DataLoader(
        samples,
        batch_size=options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        pin_memory=True,
        persistent_workers=True,
        generator=torch.Generator().manual_seed(1),
    )
    network = resnet50(num_classes=CLASSES).to(gpu, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)

    waited = computed = 0.0
    first_batch_at = first_step_ended = None
    steps = views = 0
    for _ in range(options.epochs):
        batches = iter(loader)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            got = time.perf_counter()
            if batch is None:
                break
            images, labels = (part.to(gpu, non_blocking=True) for part in batch)
            while True:
                with torch.autocast("cuda", dtype=torch.bfloat16):
                    loss = F.cross_entropy(network(view(images)), labels)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                torch.cuda.synchronize()
                views += 1
                if (time.perf_counter() - got) * 1e3 >= options.compute_ms:
                    break
            ended = time.perf_counter()
            steps += 1
            if first_batch_at is None:
                first_batch_at, first_step_ended = got, ended
            else:
                waited += got - asked
                computed += ended - got
    total = ended - first_step_ended
    print(
        json.dumps(
            {
                "au": computed / total if total else 1.0,
                "wall_s": ended - STARTED,
                "waited_s": waited,
                "first_batch_s": first_batch_at - STARTED,
                "steps": steps,
                "views": views,
                "files": len(samples),
                "loss": loss.item(),
                "gpu": torch.cuda.get_device_name(gpu),
            }
        )
    )


if __name__ == "__main__":
    main()
