"""The functions give what the classes give, from networks that they share."""

import gc
import importlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import torch
import vggfeat.functional as F

import vggfeat
from vggfeat import ADISTS, DISTS, DMM, LPIPS, STLPIPS, PerceptualLoss, RangeWarning, StyleLoss
from vggfeat.errors import InputError
from vggfeat.losses import functional
from vggfeat.networks import weights


@pytest.fixture(autouse=True)
def _fresh():
    F.release()
    yield
    F.release()


@pytest.fixture
def loads(monkeypatch):
    """The networks whose weights are read."""
    names = []
    load = weights.load

    def noting(network, *arguments, **options):
        names.append(network)
        return load(network, *arguments, **options)

    monkeypatch.setattr(weights, "load", noting)
    return names


def first_weights():
    """Where the weights of the first layer of a VGG lie in memory, as far as they are in use."""
    gc.collect()
    return {x.data_ptr() for x in gc.get_objects() if type(x) is torch.Tensor and x.shape == (64, 3, 3, 3)}


CASES = {
    "lpips": (partial(F.lpips, net="alex"), partial(LPIPS, "alex")),
    "lpips spatial": (partial(F.lpips, net="alex", spatial=True), partial(LPIPS, "alex", spatial=True)),
    "lpips exact": (partial(F.lpips, net="alex", exact=True), partial(LPIPS, "alex", exact=True)),
    "lpips of torchmetrics": (
        partial(F.lpips, convention="torchmetrics", check="off"),
        partial(LPIPS, convention="torchmetrics", check="off"),
    ),
    "dists": (F.dists, DISTS),
    "stlpips": (F.stlpips, STLPIPS),
    "adists": (F.adists, ADISTS),
    "dmm": (partial(F.dmm, small="enlarge"), partial(DMM, small="enlarge")),
    "dists resized": (partial(F.dists, resize=32), partial(DISTS, resize=32)),
    "perceptual": (
        partial(F.perceptual, content={"relu2_1": 0.5}, style=["relu1_1"], pixel=0.1, tv=0.2, distance="l1"),
        partial(PerceptualLoss, content={"relu2_1": 0.5}, style=["relu1_1"], pixel=0.1, tv=0.2, distance="l1"),
    ),
    "style": (partial(F.style, layers=["relu1_2"]), partial(StyleLoss, layers=["relu1_2"])),
}


@pytest.mark.parametrize("case", CASES)
def test_functions_are_the_classes(case, images):
    function, make = CASES[case]
    x, y = images[:1].clone().requires_grad_(), images[1:]
    ours, theirs = function(x, y), make()(x, y)
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad(value.sum(), x)[0] for value in (ours, theirs)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "none"},
        {"reduction": "sum", "chunk": 1},
        {"input_range": "signed", "check": "off"},
        {"precision": "bfloat16"},
        {"checkpoint": True},
    ],
    ids=str,
)
def test_options_are_those_of_the_class(options, images):
    assert torch.equal(F.lpips(images, images.flip(3), net="alex", **options),
                       LPIPS("alex", **options)(images, images.flip(3)))  # fmt: skip


def test_masks_and_grey_images(images):
    mask = torch.zeros(1, 1, *images.shape[2:])
    mask[..., :20] = 1
    other = images.flip(0)
    assert torch.equal(F.lpips(images, other, net="alex", mask=mask), LPIPS("alex")(images, other, mask))
    grey = images[:, :1]
    expected = LPIPS("alex", channels="repeat")(grey, grey.flip(0))
    assert torch.equal(F.lpips(grey, grey.flip(0), net="alex", channels="repeat"), expected)


def test_both_images_get_a_gradient_when_asked(images):
    x, y = (z[None].clone().requires_grad_() for z in images)
    with pytest.raises(InputError, match="the target requires grad"):
        F.lpips(x, y, net="alex")
    F.lpips(x, y, net="alex", both=True).backward()
    assert x.grad.abs().sum() > 0
    assert y.grad.abs().sum() > 0


def test_settings_need_no_further_network(images, loads):
    for options in ({}, {"reduction": "none"}, {"both": True}, {"check": "raise"}, {"chunk": 1}):
        F.lpips(images, images, net="alex", **options)
    assert loads == ["alexnet"]
    F.release()
    F.lpips(images, images, net="alex")
    assert loads == ["alexnet"] * 2


def test_functions_share_tensors_of_equal_weights(images):
    before = first_weights()
    F.dists(images, images)
    F.style(images, images)
    F.perceptual(images, images, ["relu1_2"])
    assert len(first_weights() - before) == 1
    F.perceptual(images, images, ["relu1_2"], network="vgg19")  # other weights under the same name
    assert len(first_weights() - before) == 2


def test_threads_build_one_network(images, loads):
    """Eight threads call at once, with options of their own, and get what one would."""
    start = Barrier(8, timeout=60)

    def compare(number):
        start.wait()
        return F.lpips(images[:1], images[1:], net="alex", reduction=("mean", "none")[number % 2])

    with ThreadPoolExecutor(8) as pool:
        values = [value.item() for value in pool.map(compare, range(8))]
    assert set(values) == {LPIPS("alex")(images[:1], images[1:]).item()}
    assert loads == ["alexnet"] * 2  # that of the class, too


def test_callers_are_picklable(images):
    caller = pickle.loads(pickle.dumps(partial(F.lpips, net="alex", reduction="none")))  # noqa: S301
    assert torch.equal(caller(images, images.flip(0)), F.lpips(images, images.flip(0), net="alex", reduction="none"))


def test_networks_are_where_the_images_are(images):
    there = images.to("meta")
    assert F.lpips(there, there, net="alex").device.type == "meta"
    assert F.lpips(images, images, net="alex").item() == 0
    with torch.device("meta"):
        assert F.lpips(images, images, net="alex").item() == 0
        assert F.dists(images, images).item() == pytest.approx(0, abs=1e-6)


def test_on_each_device(device, images):
    there = images.to(device)
    expected = LPIPS("alex", device=device)(there, there.flip(0))
    assert torch.equal(F.lpips(there, there.flip(0), net="alex"), expected)


def test_networks_made_in_inference_mode_can_train(images):
    with torch.inference_mode():
        inside = F.lpips(images[:1], images[1:], net="alex")
    x = images[:1].clone().requires_grad_()
    F.lpips(x, images[1:], net="alex").backward()
    assert x.grad.abs().sum() > 0
    assert torch.equal(inside, F.lpips(images[:1], images[1:], net="alex"))


def test_every_call_checks_its_images(images):
    for _ in range(2):
        with pytest.warns(RangeWarning):
            F.lpips(images * 255, images, net="alex")
    F.lpips(images * 255, images, net="alex", check="off")
    with pytest.raises(InputError, match="range"):
        F.lpips(images * 255, images, net="alex", check="raise")


@pytest.mark.slow
def test_compiles_without_a_break(images):
    F.lpips(images, images, net="alex")
    compiled = torch.compile(partial(F.lpips, net="alex"), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, images.flip(0)), F.lpips(images, images.flip(0), net="alex"))


def test_words_are_checked(images):
    with pytest.raises(InputError, match="unknown option 'reducton': did you mean reduction"):
        F.lpips(images, images, reducton="none")
    for name in ("device", "weights"):
        with pytest.raises(InputError, match=f"unknown option '{name}'"):
            F.lpips(images, images, **{name: "cpu"})
    for options, words in (({"reduction": "mena"}, "did you mean mean"), ({"check": "on"}, "unknown check"),
                           ({"net": "alxe"}, "did you mean alex"), ({"chunk": 0}, "of at least 1"),
                           ({"precision": "half"}, "unknown precision")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            F.lpips(images, images, **options)
    with pytest.raises(InputError, match=r"not a torch\.Tensor"):
        F.lpips(images.numpy(), images.numpy())


def test_one_module_under_both_names():
    assert F is functional is vggfeat.functional
    assert F.__spec__.name == F.__name__ == "vggfeat.losses.functional"
    assert importlib.import_module("vggfeat.arch") is vggfeat.arch
    with pytest.raises(ModuleNotFoundError, match=r"vggfeat\.functionals"):
        importlib.import_module("vggfeat.functionals")
