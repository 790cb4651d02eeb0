import torch

from vggfeat.transfer.objective import Selection


def test_a_selection_is_boolean_indexing():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 5, 6, generator=generator, requires_grad=True)
    mask = torch.rand(1, 1, 5, 6, generator=generator)
    expected = x[:, :, mask[0, 0] >= 0.5][:, :, None]
    found = Selection.where(mask).of(x)
    assert torch.equal(found, expected)
    weights = torch.randn(found.shape, generator=generator)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    assert torch.equal(*gradients)


def test_a_faint_mask_selects_its_largest_value():
    mask = torch.zeros(1, 1, 3, 4)
    mask[0, 0, 1, 2] = 0.1
    assert Selection.where(mask).positions.tolist() == [6]
