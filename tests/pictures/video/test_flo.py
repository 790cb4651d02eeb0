"""The .flo format, by its definition."""

import struct

import pytest
import torch

from vggfeat.errors import ImageError, InputError
from vggfeat.pictures.video.flo import read_flo, write_flo


def test_the_bytes_are_those_of_the_format(tmp_path):
    flow = torch.tensor([[[1.5, -2.0, 3.0]], [[0.25, torch.nan, 0.0]]])  # (2, 1, 3)
    write_flo(tmp_path / "a.flo", flow)
    data = (tmp_path / "a.flo").read_bytes()
    assert struct.unpack("<f", data[:4]) == (202021.25,)
    assert struct.unpack("<ii", data[4:12]) == (3, 1)
    values = struct.unpack("<6f", data[12:])
    assert values[:3] == (1.5, 0.25, -2.0)
    assert values[3] > 1e9
    assert values[4:] == (3.0, 0.0)


def test_a_flow_comes_back_and_unknown_is_nan(tmp_path):
    flow = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(0)) * 30
    flow[0, 1, 2, 3] = torch.nan
    write_flo(tmp_path / "a.flo", flow)
    found = read_flo(tmp_path / "a.flo")
    assert found[0, :, 2, 3].isnan().all()
    flow[0, :, 2, 3] = torch.nan
    torch.testing.assert_close(found, flow, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .flo file"),
        (b"PIEH\1\0\0", "not a .flo file"),
        (b"HEIP" + bytes(16), "not a .flo file"),
        (struct.pack("<4sii", b"PIEH", 2, 2) + bytes(24), "2x2 has 44 bytes, not 36"),
        (struct.pack("<4sii", b"PIEH", -1, 2) + bytes(24), "its size is -1x2"),
        (struct.pack("<4sii", b"PIEH", 10**9, 10**9), "its size is"),
    ],
)
def test_damaged_files_are_refused(data, message, tmp_path):
    path = tmp_path / "a.flo"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message):
        read_flo(path)


def test_what_is_no_flow_is_not_written(tmp_path):
    for wrong in (torch.zeros(1, 3, 4, 4), torch.zeros(4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.int32)):
        with pytest.raises(InputError, match="a flow is"):
            write_flo(tmp_path / "a.flo", wrong)
    with pytest.raises(ImageError, match="cannot write"):
        write_flo(tmp_path / "missing" / "a.flo", torch.zeros(1, 2, 4, 4))
    with pytest.raises(ImageError, match=r"cannot read .*no such file"):
        read_flo(tmp_path / "a.flo")
