"""Random numbers that depend only on the seed, the epoch and the step, so that no generator's state must be saved."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch


def mix(*numbers: int) -> int:
    """Hash several numbers to one seed.

    >>> mix(0, 1) == mix(0, 1), mix(0, 1) == mix(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator that starts from `mix(*numbers)`."""
    return torch.Generator("cpu").manual_seed(mix(*numbers))


@contextmanager
def seeded(device: torch.device, *numbers: int) -> Generator[None]:
    """Start torch's default generators from `mix(*numbers)` inside the block, and restore them afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(mix(*numbers))
        if device.type == "cuda":
            with torch.cuda.device(device):  # torch seeds the current card, which may be another
                torch.cuda.manual_seed(mix(*numbers))
        yield
