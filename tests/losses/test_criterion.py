"""What every criterion does when a model around it is moved, copied or built in an unusual way."""

import copy
import pickle
import warnings

import lpips
import pytest
import torch

from vggfeat import DISTS, LPIPS, STLPIPS, DISTSLoss, LPIPSLoss, PerceptualLoss
from vggfeat.errors import WeightsError

MAKE = {
    "lpips": lambda **options: LPIPS("alex", **options),
    "dists": DISTS,
    "stlpips": STLPIPS,
    "perceptual": lambda **options: PerceptualLoss(["relu1_1"], lpips=1.0, **options),
}


@pytest.fixture
def pair():
    return torch.rand(2, 1, 3, 40, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MAKE)
def test_heads_follow_the_networks_default_device(name):
    with torch.device("meta"):
        criterion = MAKE[name]()
    assert {x.device.type for x in criterion.buffers()} == {"meta"}


@pytest.mark.parametrize("name", MAKE)
def test_lost_weights_are_refused(name, pair):
    """to_empty() leaves whatever the memory holds, often NaN."""
    with torch.device("meta"):
        planned = torch.nn.ModuleList([MAKE[name]()])
    real = torch.nn.ModuleList([MAKE[name]()])
    expected = real[0](*pair)
    assert torch.equal(real.to(torch.float64).to(torch.float32)[0](*pair), expected)
    for model in (planned, real):
        [criterion] = model.to_empty(device="cpu")
        for call in (lambda: criterion(*pair), lambda: criterion.target(pair[1])):  # noqa: B023 (called at once)
            with pytest.raises(WeightsError, match=r"weights of this \w+ were lost, .*: construct it again"):
                call()


@pytest.mark.parametrize("make", [LPIPSLoss, DISTSLoss])
def test_heads_are_loaded_again(make):
    expected = dict(make().named_buffers())
    with torch.device("meta"):
        planned = make()
    for loss in (planned, make()):
        loss.to_empty(device="cpu")
        for key, x in loss.named_buffers():
            assert torch.equal(x, expected[key])


@pytest.mark.parametrize("name", MAKE)
def test_what_is_made_in_inference_mode_trains_later(name, pair):
    criterion = MAKE[name]()
    with torch.inference_mode():
        copied, fresh = copy.deepcopy(criterion), MAKE[name]()
        cast = MAKE[name]().to(torch.float64)
        target = criterion.target(pair[1] * 1)
    for trained in (copied, fresh, cast):
        x = pair[0].to(next(trained.loss.buffers()).dtype).requires_grad_()
        trained(x, pair[1].to(x.dtype)).backward()
        assert x.grad.abs().sum() > 0
    x = pair[0].clone().requires_grad_()
    criterion(x, target).backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("distance", ["l2", "cosine", "huber"])
def test_a_target_of_inference_mode_over_features(distance, pair):
    criterion = PerceptualLoss(["relu1_1"], distance=distance)
    with torch.inference_mode():
        target = criterion.target(pair[1])
        kept = criterion.loss.target(criterion.features(pair[1]))
    for made in (target, kept):
        x = pair[0].clone().requires_grad_()
        criterion(x, made).backward()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", MAKE)
def test_unpickled_in_inference_mode_trains_later(name, pair):
    criterion = MAKE[name]()
    with torch.inference_mode():
        trained, loss = pickle.loads(pickle.dumps((criterion, criterion.loss)))  # noqa: S301 (our own bytes)
    x = pair[0].clone().requires_grad_()
    trained(x, pair[1]).backward()
    assert x.grad.abs().sum() > 0
    assert not any(buffer.is_inference() for buffer in loss.buffers())


@pytest.mark.parametrize("name", MAKE)
def test_traces_in_float32(name, pair):
    criterion = MAKE[name](check="off")
    with warnings.catch_warnings(action="ignore"):  # tracing is deprecated
        traced = torch.jit.trace(criterion, tuple(pair))
    other = pair.flip(-1)[..., :36]
    torch.testing.assert_close(traced(*other), criterion(*other))


def test_buffers_cast_by_others_are_refused(pair):
    """FSDP's MixedPrecision(buffer_dtype=...) casts every buffer without telling the module (pytorch issue 77439)."""
    model = torch.nn.ModuleList([LPIPS("alex")])
    for buffer in model.buffers():
        buffer.data = buffer.data.bfloat16()
    with pytest.raises(WeightsError, match=r"were cast to torch\.bfloat16, .* ignored_modules=\[criterion\]"):
        model[0](*pair)


class Model(torch.nn.Module):
    def __init__(self, criterion):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.perceptual = criterion


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
def test_checkpoints_with_the_lpips_packages_keys_load_strictly():
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    old, new = Model(theirs), Model(LPIPS("alex"))
    new.load_state_dict(old.state_dict(), strict=True)
    assert torch.equal(new.layer.weight, old.layer.weight)
    with torch.no_grad():
        theirs.lin2.model[1].weight.mul_(2)  # trained further: its values must not be lost without a word
    with pytest.raises(RuntimeError, match=r"heads under 'perceptual\.' are not those of this LPIPS: use LPIPS.from_"):
        new.load_state_dict(old.state_dict(), strict=True)


def test_on_a_named_device_where_another_is_the_default(pair):
    """Also where tensors of the default device have no values."""
    with torch.device("meta"):
        criterion = DISTS(device="cpu")
    assert torch.equal(criterion(*pair), DISTS()(*pair))
