"""Records in which order the generators of Python and NumPy shuffle, as data/orders.txt: run it with any that are to be matched.

A line: way, seed, how many; then the order, and the one that the same generator draws after it."""

import random

import numpy as np


def python_shuffle(seed, n):
    random.seed(seed)
    for _ in range(2):
        order = list(range(n))
        random.shuffle(order)
        yield order


def python_sample(seed, n):
    random.seed(seed)
    for _ in range(2):
        yield random.sample(range(n), n)


def numpy_shuffle(seed, n):
    np.random.seed(seed)
    yield np.random.permutation(n)
    order = list(range(n))
    np.random.shuffle(order)
    yield order


def numpy_generator(seed, n):
    generator = np.random.default_rng(seed)
    yield generator.permutation(n)
    order = np.arange(n)
    generator.shuffle(order)
    yield order


with open(__file__.replace("orders.py", "data/orders.txt"), "w") as out:
    for way in [python_shuffle, python_sample, numpy_shuffle, numpy_generator]:
        for seed, n in [(0, 1), (0, 16), (7, 24), (1234, 100), (2**20 + 3, 33), (2**32 - 1, 64)]:
            orders = ["\t".join(str(i) for i in order) for order in way(seed, n)]
            out.write(f"{way.__name__} {seed} {n}|{'|'.join(orders)}\n")
