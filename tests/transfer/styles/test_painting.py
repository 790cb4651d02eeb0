import pytest
import torch

from vggfeat import InputError, fast_stylize
from vggfeat.pictures import images


def test_strength_blends_the_picture_with_its_painting(styles):
    content = torch.rand(1, 3, 20, 30)
    full = fast_stylize(content, "dots", styles=styles)
    assert not torch.allclose(full, content, atol=0.1)
    assert torch.equal(fast_stylize(content, "dots", styles=styles, strength=0), content)
    half = fast_stylize(content, "dots", styles=styles, strength=0.5)
    assert torch.allclose(half, (content + full) / 2, atol=1e-6)


def test_a_mix_is_text_or_a_mapping_and_styles_are_a_file_or_loaded(styles, tmp_path):
    content = torch.rand(1, 3, 20, 30)
    styles.save(tmp_path / "my.safetensors")
    first = fast_stylize(content, {"waves": 4, "dots": 2}, styles=tmp_path / "my.safetensors")
    assert torch.equal(first, fast_stylize(content, f"{tmp_path}/my.safetensors:waves:2,dots:1"))
    assert not torch.allclose(first, fast_stylize(content, "dots", styles=tmp_path / "my.safetensors"), atol=0.01)
    with pytest.raises(InputError, match="did you mean dots"):
        fast_stylize(content, {"dot": 1}, styles=styles)


def test_size_shrinks_the_picture_first(styles):
    content = torch.rand(1, 3, 40, 60)
    small = fast_stylize(content, "dots", styles=styles, size=30)
    assert torch.equal(small, fast_stylize(images.resize(content, 20, 30), "dots", styles=styles))
    assert fast_stylize(content, "dots", styles=styles, size=500).shape == content.shape


def test_a_memory_limit_computes_in_blocks(styles):
    content = torch.rand(1, 3, 300, 400)
    whole = fast_stylize(content, "waves", styles=styles, memory_limit="1GB")
    blocks = fast_stylize(content, "waves", styles=styles, memory_limit="12MB")
    assert not torch.equal(whole, blocks)
    assert torch.allclose(whole, blocks, atol=1e-5)
    with pytest.raises(InputError, match="even in small blocks"):
        fast_stylize(content, "waves", styles=styles, memory_limit="1MB")


@pytest.mark.parametrize("strength", [-0.1, 1.1, "half"])
def test_strength_is_checked(styles, strength):
    with pytest.raises(InputError, match="strength is"):
        fast_stylize(torch.rand(1, 3, 20, 20), "dots", styles=styles, strength=strength)
