import pytest
import torch
from recorder import Recorder

from vggfeat.transfer import optimise
from vggfeat.transfer.history import ListedHistory, StackedHistory, remember
from vggfeat.transfer.optimise import BoundedLBFGS, LossAndGradient

SHAPE = 1, 3, 90, 100  # more values than one product adds up


def filled(kind, added, count=4, skipped=(), seed=0):
    """A history to which pairs of a quadratic were added; those in `skipped` with weight 0."""
    generator = torch.Generator().manual_seed(seed)
    found = kind(count, torch.empty(SHAPE, dtype=torch.float64), {})
    scale = torch.logspace(-1, 1, 27000, dtype=torch.float64).view(SHAPE)
    for number in range(added):
        s = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        y = scale * s
        found.add(s, y, 0 * s.sum() if number in skipped else 1 / (s * y).sum())
    return found


@pytest.mark.parametrize("skipped", [(), (4, 6)])
@pytest.mark.parametrize("added", [0, 1, 3, 4, 5, 11])
def test_the_stacked_recursion_is_the_two_loop_recursion(added, skipped):
    vector = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    listed, stacked = (filled(kind, added, skipped=skipped) for kind in (ListedHistory, StackedHistory))
    expected, found = (each.inverse_hessian(vector, lambda q: 0.3 * q) for each in (listed, stacked))
    assert torch.equal(expected, 0.3 * vector) == (added == 0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    state = stacked.state()
    assert listed.state().keys() == state.keys() - {"free"}
    torch.testing.assert_close({name: state[name] for name in listed.state()}, listed.state(), rtol=0, atol=0)


@pytest.mark.parametrize("added", [2, 7])
def test_a_history_resumes_to_the_bit(added):
    first = filled(StackedHistory, added)
    resumed = StackedHistory(4, torch.empty(SHAPE, dtype=torch.float64), first.state())
    vector = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(*(each.inverse_hessian(vector, lambda q: q) for each in (first, resumed)))


def test_the_state_outlives_the_next_pair():
    found = filled(StackedHistory, 7)
    state = found.state()
    kept = {name: x.clone() for name, x in state.items()}
    found.add(*(torch.ones(SHAPE, dtype=torch.float64) for _ in range(2)), torch.ones((), dtype=torch.float64))
    assert all(torch.equal(state[name], x) for name, x in kept.items())


def test_kernels_do_not_grow_with_the_pairs():
    counts = []
    for added in (1, 12):
        found = remember(12, torch.empty(SHAPE, device="meta"), {})
        for _ in range(added):
            found.add(*(torch.empty(SHAPE, device="meta") for _ in range(2)), torch.empty((), device="meta"))
        with Recorder() as recorder:
            found.inverse_hessian(torch.empty(SHAPE, device="meta"), lambda q: q)
        counts.append(sum(recorder.kernels.values()))
        assert not recorder.waits
        assert not recorder.copies
    assert counts[0] == counts[1] <= 30


def test_lbfgs_takes_the_same_way_with_both(monkeypatch):
    target = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    scale = torch.logspace(0, 2, target.numel()).reshape(target.shape)

    def closure(image):
        difference = image - target
        loss = (scale * difference.square()).sum() / 2
        return LossAndGradient(loss, scale * difference, {"all": loss})

    losses = []
    for kind in (ListedHistory, StackedHistory):
        monkeypatch.setattr(optimise, "remember", kind)
        optimiser = BoundedLBFGS(torch.full_like(target, 0.5), closure)
        for _ in range(20):
            optimiser.step()
        losses.append(optimiser.evaluation.loss)
    assert losses[0] < 0.05 * closure(torch.full_like(target, 0.5)).loss
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0)
