import io

import numpy as np
import pytest
import torch
from PIL import Image

from vggfeat.errors import ImageError, InputError
from vggfeat.pictures import sources
from vggfeat.pictures.images import write_picture


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    rgb = torch.from_numpy(array).permute(2, 0, 1)[None] / 255
    path = tmp_path / "a.png"
    write_picture(path, rgb)
    floats = (array / 255).astype(np.float64)
    for source in (path, str(path), rgb, rgb[0], Image.open(path), array, array[:, ::-1][:, ::-1], floats,
                   path.read_bytes(), io.BytesIO(path.read_bytes())):  # fmt: skip
        found = sources.read(source)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, rgb, rtol=0, atol=1e-6)
        assert sources.is_source(source)
    assert not sources.is_source([path])


@pytest.mark.parametrize("source", [
    np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.int64), np.full((4, 4, 3), 200.0),
    torch.zeros(2, 3, 4, 4), io.StringIO("text"), 3, None,
])  # fmt: skip
def test_other_sources_are_refused(source):
    with pytest.raises(InputError):
        sources.read(source, "the style")


def test_bytes_that_are_no_picture():
    with pytest.raises(ImageError, match="cannot read 'the style': it is not a picture"):
        sources.read(b"text", "the style")


def test_names(tmp_path):
    assert sources.name(tmp_path / "a.png") == "a.png"
    assert sources.name(torch.zeros(1, 3, 2, 2)) == "a tensor"
    assert sources.name(np.zeros((2, 2, 3))) == "an array"
    assert sources.name(b"") == "a picture"


def test_an_array_that_cannot_be_written_is_read_without_a_warning(recwarn):
    array = np.asarray(Image.new("RGB", (6, 4), (255, 0, 0)))
    assert not array.flags.writeable
    assert sources.read(array)[0, :, 0, 0].tolist() == [1, 0, 0]
    assert not recwarn.list
