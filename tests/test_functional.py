import piq
import pytest
import torch

from vggfeat import functional

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def einsum_gram(x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nchw,ndhw->ncd", x, x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gram_against_the_definition(dtype, layout):
    x = torch.rand(2, 5, 7, 9, generator=torch.Generator().manual_seed(0)).to(dtype).contiguous(memory_format=layout)
    exact = einsum_gram(x.double())
    gram = functional.gram(x, divide_by="none")
    assert gram.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(gram.double(), exact, rtol=4e-3 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    torch.testing.assert_close(functional.gram(x), gram / 63)
    torch.testing.assert_close(functional.gram(x, divide_by="chw"), gram / 315)


def test_gram_is_piqs_undivided():
    x = torch.rand(2, 6, 8, 8)
    theirs = piq.GramLoss.gram_matrix(x)
    torch.testing.assert_close(functional.gram(x, divide_by="none"), theirs.reshape(2, 6, 6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gram_of_many_pixels_does_not_overflow(dtype):
    x = torch.full((1, 4, 256, 256), 30.0, dtype=dtype)
    torch.testing.assert_close(functional.gram(x), torch.full((1, 4, 4), 900.0), rtol=4e-3, atol=0)


def test_gram_gradients():
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(functional.gram, x)
    assert torch.autograd.gradgradcheck(functional.gram, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gram_gradient_in_half_precision(dtype):
    x = torch.rand(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    target = torch.eye(8)[None]
    gradients = []
    for copy in (x.clone(), x.to(dtype)):
        copy.requires_grad_()
        (functional.gram(copy) - target).square().mean().backward()
        gradients.append(copy.grad.float().flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_gram_compiles():
    x = torch.rand(1, 4, 6, 6, requires_grad=True)
    compiled = torch.compile(functional.gram, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), functional.gram(x))
    (ours,) = torch.autograd.grad(compiled(x).square().sum(), x)
    (plain,) = torch.autograd.grad(functional.gram(x).square().sum(), x)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("power", [1, 2])
def test_total_variation(power):
    x = torch.zeros(2, 3, 4, 4)
    x[1, :, :, 2:] = 0.5  # one edge of a half among three neighbours a row
    assert functional.total_variation(x, power=power).tolist() == pytest.approx([0.0, 0.5**power / 3])
    noise = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda image: functional.total_variation(image, power=power), noise)


def test_total_variation_of_a_single_pixel_is_zero():
    assert functional.total_variation(torch.rand(1, 3, 1, 1)).tolist() == [0.0]


def test_mirror_pad_is_torchs_reflection():
    x = torch.rand(2, 3, 9, 7)
    assert torch.equal(functional.mirror_pad(x, 4), torch.nn.functional.pad(x, (4,) * 4, mode="reflect"))
