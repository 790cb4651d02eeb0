import lpips
import piq
import pytest
import scipy.linalg
import torch

from vggfeat.errors import InputError
from vggfeat.losses import formulas
from vggfeat.pictures import padding

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def einsum_gram(x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nchw,ndhw->ncd", x, x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gram_against_the_definition(dtype, layout):
    x = torch.rand(2, 5, 7, 9, generator=torch.Generator().manual_seed(0)).to(dtype).contiguous(memory_format=layout)
    exact = einsum_gram(x.double())
    gram = formulas.gram(x, divide_by="none")
    assert gram.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(gram.double(), exact, rtol=4e-3 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    torch.testing.assert_close(formulas.gram(x), gram / 63)
    torch.testing.assert_close(formulas.gram(x, divide_by="chw"), gram / 315)


def test_gram_is_piqs_undivided():
    x = torch.rand(2, 6, 8, 8)
    theirs = piq.StyleLoss.gram_matrix(x)
    torch.testing.assert_close(formulas.gram(x, divide_by="none"), theirs.reshape(2, 6, 6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gram_of_many_pixels_does_not_overflow(dtype):
    x = torch.full((1, 4, 256, 256), 30.0, dtype=dtype)
    torch.testing.assert_close(formulas.gram(x), torch.full((1, 4, 4), 900.0), rtol=4e-3, atol=0)


def test_gram_gradients():
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(formulas.gram, x)
    assert torch.autograd.gradgradcheck(formulas.gram, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gram_gradient_in_half_precision(dtype):
    x = torch.rand(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    target = torch.eye(8)[None]
    gradients = []
    for copy in (x.clone(), x.to(dtype)):
        copy.requires_grad_()
        (formulas.gram(copy) - target).square().mean().backward()
        gradients.append(copy.grad.float().flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_gram_compiles():
    x = torch.rand(1, 4, 6, 6, requires_grad=True)
    compiled = torch.compile(formulas.gram, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), formulas.gram(x))
    (ours,) = torch.autograd.grad(compiled(x).square().sum(), x)
    (plain,) = torch.autograd.grad(formulas.gram(x).square().sum(), x)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("power", [1, 2])
def test_total_variation(power):
    x = torch.zeros(2, 3, 4, 4)
    x[1, :, :, 2:] = 0.5  # one edge of a half among three neighbours a row
    assert formulas.total_variation(x, power=power).tolist() == pytest.approx([0.0, 0.5**power / 3])
    noise = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: formulas.total_variation(image, power=power), noise)


def test_gram_keeps_its_precision_under_autocast():
    x = torch.rand(1, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(formulas.gram(x), formulas.gram(x).float())
        inside = formulas.gram(x)
    assert torch.equal(inside, formulas.gram(x))


def test_gram_refuses_by_name():
    with pytest.raises(InputError, match="have the shape"):
        formulas.gram(torch.rand(3, 4, 4))
    with pytest.raises(InputError, match="unknown divide_by 'HW': did you mean hw or chw"):
        formulas.gram(torch.rand(1, 3, 4, 4), divide_by="HW")


def test_total_variation_of_a_single_pixel_is_zero():
    assert formulas.total_variation(torch.rand(1, 3, 1, 1)).tolist() == [0.0]


@pytest.mark.parametrize("margin", [0, 3, 5, 14])
def test_wrap_pad_is_the_middle_of_a_tiling(margin):
    x = torch.rand(1, 3, 5, 7)
    tiled = x.repeat(1, 1, 7, 5)
    assert torch.equal(padding.wrap_pad(x, margin), tiled[:, :, 15 - margin : 20 + margin, 14 - margin : 21 + margin])


def test_mirror_pad_is_torchs_reflection():
    x = torch.rand(2, 3, 9, 7)
    assert torch.equal(padding.mirror_pad(x, 4), torch.nn.functional.pad(x, (4,) * 4, mode="reflect"))


def test_unit_normalize_is_the_lpips_packages_with_a_finite_gradient():
    x = torch.rand(2, 5, 4, 4)
    x[0, :, 1, 1] = 0
    assert torch.equal(formulas.unit_normalize(x), lpips.normalize_tensor(x))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(formulas.unit_normalize(x).square().sum(), x)
    assert gradient.isfinite().all()
    assert gradient[0, :, 1, 1].abs().max() == 0
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    formulas.unit_normalize(black).sum().backward()
    assert black.grad.abs().max() == 0


def test_moments_against_the_definition():
    x = torch.rand(2, 4, 5, 6, dtype=torch.float64)
    mean, std = formulas.mean_std(x, epsilon=0).unbind(1)
    torch.testing.assert_close(mean, x.mean((2, 3)))
    torch.testing.assert_close(std, x.flatten(2).std(2, correction=0))
    moments = formulas.mean_covariance(x)
    torch.testing.assert_close(moments[:, 0], mean)
    for ours, theirs in zip(moments[:, 1:], x.flatten(2), strict=True):
        torch.testing.assert_close(ours, torch.cov(theirs, correction=0))


def spd(seed, rank=4):
    root = torch.randn(2, 4, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mean = torch.randn(2, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 9))
    return torch.cat([mean, root @ root.mT], dim=1)


def test_gaussian_w2_against_matrix_square_roots():
    x, y = spd(0), spd(1)
    for got, a, b in zip(formulas.gaussian_w2(x, y), x.numpy(), y.numpy(), strict=True):
        root = scipy.linalg.sqrtm(a[1:])
        cross = scipy.linalg.sqrtm(root @ b[1:] @ root)
        expected = ((a[0] - b[0]) ** 2).sum() + (a[1:] + b[1:] - 2 * cross).trace().real
        assert got.item() == pytest.approx(expected, rel=1e-9)


def test_covariance_of_nearly_constant_features_keeps_its_digits():
    x = 5 + 0.05 * torch.randn(1, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    exact = formulas.mean_covariance(x.double())
    torch.testing.assert_close(formulas.mean_covariance(x).double(), exact, rtol=1e-4, atol=1e-8)


def test_gaussian_w2_gradients():
    def distance(x, y):
        # Symmetrised, since covariances move only so.
        return formulas.gaussian_w2(*(torch.cat([z[:, :1], (z[:, 1:] + z[:, 1:].mT) / 2], dim=1) for z in (x, y)))

    x, y = spd(0).requires_grad_(), spd(1).requires_grad_()
    assert torch.autograd.gradcheck(distance, (x, y))


def test_gaussian_w2_of_deficient_covariances_has_a_finite_gradient():
    x, y = spd(0, rank=1).requires_grad_(), spd(1, rank=2)
    (gradient,) = torch.autograd.grad(formulas.gaussian_w2(x, y).sum(), x)
    assert gradient.isfinite().all()
    assert formulas.gaussian_w2(y, y).abs().max() < 1e-6


def test_quantile_distance_is_scipys_wasserstein_in_one_dimension():
    x, y = torch.rand(2, 3, 40, dtype=torch.float64).sort(dim=2).values
    ours = formulas.quantile_distance(x[:, None], y[:, None])
    theirs = [((a - b) ** 2).mean() for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    assert ours.tolist() == pytest.approx(theirs)
    # Twice the samples of the same distribution are no distance at all.
    twice = x.repeat_interleave(2, dim=1)[:, None]
    assert formulas.quantile_distance(x[:, None], twice).max() < 1e-3


def contextual_by_definition(x, y, bandwidth):
    x, y = x.flatten(1).double(), y.flatten(1).double()
    centre = y.mean(1, keepdim=True)
    x, y = x - centre, y - centre
    distance = 1 - (x.T @ y) / (x.norm(dim=0)[:, None] * y.norm(dim=0)[None])
    weights = ((1 - distance / (distance.min(1, keepdim=True).values + 1e-5)) / bandwidth).exp()
    return (weights / weights.sum(1, keepdim=True)).max(0).values.mean()


@pytest.mark.parametrize("chunk", [3, 1000])
def test_contextual_similarity_against_the_definition(chunk):
    x, y = torch.rand(2, 4, 5, 5), torch.rand(2, 4, 6, 3)
    ours = formulas.contextual_similarity(x, y, bandwidth=0.5, chunk=chunk)
    theirs = [contextual_by_definition(a, b, 0.5).item() for a, b in zip(x, y, strict=True)]
    assert ours.tolist() == pytest.approx(theirs, rel=1e-4)


def test_contextual_similarity_does_not_depend_on_chunks_or_places():
    x = torch.rand(1, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 4, 6, 6, dtype=torch.float64)
    values = [formulas.contextual_similarity(x, y, chunk=chunk) for chunk in (5, 100)]
    gradients = [torch.autograd.grad(value.sum(), x)[0] for value in values]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
    moved = formulas.contextual_similarity(x.roll((2, 3), (2, 3)), y)
    torch.testing.assert_close(moved, values[0])


def test_contextual_similarity_bounds_its_memory():
    """What autograd keeps grows with the chunk, not with the product of the positions."""
    x, y = torch.rand(1, 2, 64, 64, requires_grad=True), torch.rand(1, 2, 64, 64)
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        formulas.contextual_similarity(x, y, chunk=256).sum()
    assert sum(kept) < 64**4 / 8


def test_crop_is_a_slice_and_keeps_the_layout():
    x = torch.rand(2, 3, 8, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.equal(padding.crop(x, 2), x[:, :, 2:6, 2:7])
    assert padding.crop(x, 0) is x
    seen = []
    y = x * 1
    y.register_hook(lambda gradient: seen.append(gradient.is_contiguous(memory_format=torch.channels_last)))
    padding.crop(y, 2).square().sum().backward()
    assert seen == [True]
    theirs = torch.zeros_like(x)
    theirs[:, :, 2:6, 2:7] = 2 * x.detach()[:, :, 2:6, 2:7]
    assert torch.equal(x.grad, theirs)


def test_nearest_cosine_distance_is_the_least_of_all():
    x, y = torch.rand(2, 5, 3, 4, dtype=torch.float64, requires_grad=True), torch.rand(1, 5, 2, 6, dtype=torch.float64)
    centre = y.mean((2, 3), keepdim=True)
    a, b = (torch.nn.functional.normalize((z - centre).flatten(2), dim=1) for z in (x, y))
    expected = (1 - (a.mT @ b).amax(2)).mean(1)
    for chunk in (5, 1024):
        torch.testing.assert_close(formulas.nearest_cosine_distance(x, y, chunk=chunk), expected)
    assert torch.autograd.gradcheck(lambda x: formulas.nearest_cosine_distance(x, y), x)
    assert formulas.nearest_cosine_distance(y, y).item() == pytest.approx(0, abs=1e-9)
