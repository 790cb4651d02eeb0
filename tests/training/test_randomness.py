"""Random numbers depend on seed, epoch and step only, on any card."""

from contextlib import contextmanager, nullcontext

import torch

from vggfeat.training import randomness

CARD = torch.device("cuda:1")


def test_the_card_that_trains_is_seeded(monkeypatch):
    """Torch seeds the current card, which need not be the one that trains."""
    current, seeded = [torch.device("cuda:0")], []

    @contextmanager
    def chosen(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", chosen)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append((current[-1], seed)))

    def forked(devices):
        assert devices == [CARD]
        return nullcontext()

    monkeypatch.setattr(torch.random, "fork_rng", forked)
    with randomness.seeded(CARD, 3, 4):
        pass
    assert seeded == [(CARD, randomness.mix(3, 4))]
    assert current == [torch.device("cuda:0")]


def test_the_default_generator_is_restored():
    before = torch.get_rng_state()
    with randomness.seeded(torch.device("cpu"), 3, 4):
        first = torch.rand(3)
    with randomness.seeded(torch.device("cpu"), 3, 4):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)
