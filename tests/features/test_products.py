"""Matrix products hold torch's settings of float32, forward and backward. The processor plays the part of a GPU."""

import pytest
import torch
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

import vggfeat
from vggfeat.features import convolution
from vggfeat.features.products import add_product, product
from vggfeat.losses import formulas

PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm_", "aten::baddbmm", "aten::mv", "aten::dot"}


class Observed(TorchDispatchMode):
    """Notes the setting of products at the moment of each."""

    def __init__(self):
        super().__init__()
        self.settings = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function.name().split(".")[0] in PRODUCTS:
            self.settings.append(torch.backends.cuda.matmul.fp32_precision)
        return function(*arguments, **(options or {}))


@pytest.fixture
def gpu(monkeypatch):
    """Treat the processor as a device whose arithmetic depends on settings, which the user has set to TF32."""
    monkeypatch.setattr(convolution, "DEVICES", ("cpu",))
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    yield
    assert matmul.fp32_precision == "tf32"
    matmul.fp32_precision = before


def matrices(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(shape, generator=generator, dtype=dtype) for shape in ((2, 4, 3), (3, 5)))


@pytest.mark.usefixtures("gpu")
def test_settings_at_the_moment_of_each_product():
    a, b = (x.requires_grad_() for x in matrices())
    with Observed() as seen:
        gradients = torch.autograd.grad(product(a, b).square().sum(), (a, b), create_graph=True)
        sum(x.square().sum() for x in gradients).backward()
    assert len(seen.settings) >= 7
    assert set(seen.settings) == {"ieee"}


@pytest.mark.usefixtures("gpu")
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
@pytest.mark.parametrize("shapes", [((2, 4, 3), (3, 5)), ((4, 3), (2, 3, 5)), ((1, 4, 3), (6, 3, 2)), ((4, 3), (3,))])
def test_it_is_torchs_product(shapes, monkeypatch):
    monkeypatch.setattr(convolution, "DTYPES", (torch.float64,))
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes)
    torch.testing.assert_close(product(a, b), a @ b, rtol=0, atol=0)
    assert torch.autograd.gradcheck(product, (a, b), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(product, (a, b))
    torch.testing.assert_close(
        torch.func.vmap(product, (0, None))(a, b), torch.func.vmap(torch.matmul, (0, None))(a, b)
    )


@pytest.mark.usefixtures("gpu")
def test_a_compiled_graph_holds_them(monkeypatch):
    a, b = (x.requires_grad_() for x in matrices())
    expected = torch.autograd.grad((a @ b).square().sum(), (a, b))
    seen = []

    def note(*factors, real=torch.matmul):
        if not any(isinstance(x, FakeTensor) for x in factors):
            seen.append(torch.backends.cuda.matmul.fp32_precision)
        return real(*factors)

    monkeypatch.setattr(torch, "matmul", note)
    found = torch.compile(lambda a, b: product(a, b).square().sum(), fullgraph=True, backend="aot_eager")(a, b)
    torch.testing.assert_close(torch.autograd.grad(found, (a, b)), expected)
    assert seen == ["ieee"] * 3


@pytest.mark.usefixtures("gpu")
def test_adding_a_product():
    a, b = (x.expand(2, *x.shape[-2:]).contiguous() for x in matrices())
    total = torch.ones(2, 4, 5)
    with Observed() as seen:
        add_product(total, a, b)
    torch.testing.assert_close(total, 1 + a @ b)
    assert seen.settings[0] == "ieee"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.usefixtures("gpu")
def test_other_dtypes_need_no_settings(dtype):
    a, b = matrices(dtype)
    with Observed() as seen:
        product(a, b)
    assert seen.settings == ["tf32"]


LOSSES = {
    "gram": vggfeat.GramLoss,
    "covariance": vggfeat.CovarianceLoss,
    "sliced": vggfeat.SlicedWassersteinLoss,
    "contextual": vggfeat.ContextualLoss,
}


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_products_hold_them(name):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, 4, 6, 5, generator=generator) for _ in range(2))
    loss = LOSSES[name](["relu1_1"])
    with Observed() as seen:
        target = loss.target({"relu1_1": y})
        loss({"relu1_1": x.requires_grad_()}, target).backward()
    assert len(seen.settings) >= 2
    assert set(seen.settings) == {"ieee"}


@pytest.mark.usefixtures("gpu")
def test_the_products_of_whole_losses_hold_them(images):
    other = images.flip(0)
    for criterion in (vggfeat.LPIPS("alex", device="cpu"), vggfeat.DISTS(device="cpu")):
        with Observed() as seen:
            criterion(images.clone().requires_grad_(), other).backward()
        assert len(seen.settings) >= 5
        assert set(seen.settings) == {"ieee"}


@pytest.mark.usefixtures("gpu")
def test_nearest_neighbours_and_covariances_in_blocks_hold_them():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, 4, 6, 5, generator=generator) for _ in range(2))
    loss = vggfeat.CovarianceLoss(["relu1_1"])
    with Observed() as seen:
        formulas.nearest_cosine_distance(x.requires_grad_(), y).sum().backward()
        loss.from_moments(loss.moments(x), 30).sum().backward()
    assert len(seen.settings) >= 3
    assert set(seen.settings) == {"ieee"}
