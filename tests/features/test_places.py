"""Extractors under another default device, on the meta device, and on GPUs that are not there."""

import copy

import pytest
import torch
from torch._subclasses import FakeTensorMode

from vggfeat import DISTS, LPIPS, FeatureExtractor, PerceptualLoss
from vggfeat.errors import InputError, WeightsError
from vggfeat.features.squeezenet import SqueezeNet
from vggfeat.networks import weights as weights_table
from vggfeat.networks.network import vgg
from vggfeat.pictures.ranges import check_range
from vggfeat.training.recipe import TrainingRecipe
from vggfeat.training.run import train


def small(**options):
    return FeatureExtractor("vgg11", "relu2_1", **{"weights": None, **options})


@pytest.mark.parametrize("weights", [None, "mapping"])
def test_a_named_device_holds_under_another_default_device(weights):
    if weights:
        weights = weights_table.load("vgg11", None)[0]
    expected = small(weights=weights, device="cpu")
    with torch.device("meta"):
        extract = small(weights=weights, device="cpu")
    assert {x.device.type for x in extract.buffers()} == {"cpu"}
    for ours, theirs in zip(extract.buffers(), expected.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_bundled_weights_under_another_default_device():
    with torch.device("meta"):
        extract = FeatureExtractor("vgg16", "relu1_1", device="cpu")
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(extract(x)["relu1_1"], FeatureExtractor("vgg16", "relu1_1", device="cpu")(x)["relu1_1"])


def test_training_under_another_default_device(tmp_path):
    recipe = TrainingRecipe(network="4,M,8", size=8, epochs=1, batch_size=512)

    def losses(folder):
        return [progress.loss for progress in train("digits", tmp_path / folder, recipe, device="cpu")]

    expected = losses("a")
    with torch.device("meta"):
        assert losses("b") == expected


@pytest.mark.parametrize("make", [small, lambda **options: SqueezeNet(["features.1"], weights=None, **options)])
def test_weights_that_were_never_filled_are_refused(make):
    extract = make(device="meta")
    assert next(iter(extract(torch.rand(1, 3, 32, 32, device="meta")).values())).is_meta  # shapes only
    extract.to_empty(device="cpu")
    with pytest.raises(WeightsError, match=r"weights of .* are lost, because to_empty\(\) does not copy values"):
        extract(torch.rand(1, 3, 32, 32))


def test_weights_that_were_emptied_inside_a_model_are_refused():
    parent = torch.nn.Sequential(small(device="cpu"))
    for _ in range(3):  # the memory that is taken again may hold what it held before
        parent.to_empty(device="cpu")
        with pytest.raises(WeightsError, match="lost"):
            copy.deepcopy(parent)(torch.rand(1, 3, 32, 32))


def test_moves_that_keep_values_are_allowed():
    extract = small(device="cpu")
    x = torch.rand(1, 3, 32, 32)
    expected = extract(x)["relu2_1"]
    moved = extract.double().to("cpu").float()
    assert torch.equal(moved(x)["relu2_1"], expected)
    assert extract.bfloat16()(x)["relu2_1"].dtype == torch.bfloat16


def test_a_live_model_may_be_filled_after_to_empty():
    model = vgg("8,M", head=None, seed=0)
    tap = FeatureExtractor.of(model, "relu1_1", frozen=False)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected = tap(torch.zeros(1, 3, 8, 8))["relu1_1"]
    tap.to_empty(device="cpu")
    model.load_state_dict(state)
    assert torch.equal(tap(torch.zeros(1, 3, 8, 8))["relu1_1"], expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("file", [True, False])
def test_weights_that_are_not_finite_are_refused(value, file, tmp_path):
    state = dict(weights_table.load("vgg11", None)[0])
    state["features.3.bias"][7] = value
    if file:
        torch.save(state, tmp_path / "own.pth")
        state = tmp_path / "own.pth"
    with pytest.raises(WeightsError, match=r"damaged: features\.3\.bias holds values that are not finite"):
        small(weights=state)


def test_checks_do_not_hide_errors_of_the_device(monkeypatch):
    """Errors of CUDA's kernels arrive with the first read of a value."""

    def failing(*_):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "aminmax", failing)
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        check_range(torch.rand(1, 3, 4, 4), "unit")


def test_a_check_reads_once(monkeypatch):
    """Each read waits for a GPU."""
    reads = []
    for name in ("item", "tolist", "__float__", "__bool__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda x, real=real: reads.append(1) or real(x))
    assert check_range(torch.rand(1, 3, 4, 4), "unit") is None
    assert len(reads) == 1
    with pytest.raises(InputError, match="NaN"):
        check_range(torch.full((1, 3, 4, 4), torch.nan), "unit")


def test_forward_and_backward_hooks_on_a_network():
    model = vgg("4,M,8", head="gap", num_classes=2, seed=0)
    kept, gradients = [], []

    def keep(_module, _given, result):
        kept.append((result, result.detach().clone()))

    def note(_module, _given, result):
        gradients.append(result)

    for module in model.features:
        module.register_forward_hook(keep)
        module.register_full_backward_hook(note)
    model(torch.randn(1, 3, 8, 8, requires_grad=True)).sum().backward()
    assert all(torch.equal(result, clone) for result, clone in kept)
    assert len(gradients) == len(model.features)


CUDA = torch.device("cuda")


# Asking whether values are in memory warns for fake tensors.
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureExtractor("vgg16", "relu3_1", device="cpu", check="off"),
        lambda: FeatureExtractor("vgg16", "relu3_1", device="cpu", check="warn", precision="bfloat16"),
        lambda: FeatureExtractor("vgg16", "relu3_1", device="cpu", pooling="l2"),
        lambda: SqueezeNet(["features.3"], weights=None, device="cpu"),
        lambda: LPIPS("alex", device="cpu"),
        lambda: LPIPS("vgg", device="cpu"),
        lambda: DISTS(device="cpu"),
        lambda: PerceptualLoss(["relu3_3"], ["relu1_2"], device="cpu"),
    ],
    ids=["extractor", "bfloat16", "l2", "squeezenet", "lpips alex", "lpips", "dists", "perceptual"],
)
def test_a_forward_pass_on_cuda_mixes_no_devices(make):
    module = make()
    count = 1 if isinstance(module, FeatureExtractor | SqueezeNet) else 2
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        module.to(CUDA)
        result = module(*(torch.rand(1, 3, 64, 64, device=CUDA) for _ in range(count)))
    assert {x.device.type for x in (result.values() if isinstance(result, dict) else [result])} == {"cuda"}
