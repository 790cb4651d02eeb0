"""Optical flow: against exact motion, from files, and from torchvision's network."""

import sys

import pytest
import scenes
import torch

from vggfeat.errors import ImageError, InputError, VggfeatError
from vggfeat.pictures.video.flo import write_flo
from vggfeat.pictures.video.flow import Frame, flow_function, optical_flow


@pytest.mark.parametrize("method", ["tvl1", "ilk"])
def test_a_flow_is_near_the_exact_one(method):
    pytest.importorskip("skimage")
    clip = scenes.clip(2)
    first, second = Frame(1, clip[:1]), Frame(2, clip[1:])
    for a, b in ((first, second), (second, first)):
        error = (optical_flow(a.picture, b.picture, method) - scenes.flow(a, b)).square().sum(1).sqrt()
        assert error[..., 6:-6, 6:-6].mean() < 0.2
    assert scenes.flow(second, first).square().sum(1).sqrt().mean() > 1


def test_files_are_found_by_the_numbers_of_the_frames_and_resized(tmp_path):
    clip = scenes.clip(3)
    first, third = Frame(1, clip[:1]), Frame(3, clip[2:])
    with pytest.raises(InputError, match=r"there is no \.flo file in"):
        flow_function(tmp_path)
    write_flo(tmp_path / "forward_1_3.flo", scenes.flow(first, third))
    write_flo(tmp_path / "backward_3_1.flo", scenes.flow(third, first))
    find = flow_function(tmp_path)
    torch.testing.assert_close(find(first, third), scenes.flow(first, third))
    torch.testing.assert_close(find(third, first), scenes.flow(third, first))
    halves = [Frame(number, torch.nn.functional.avg_pool2d(x, 2)) for number, x in (first, third)]
    whole = torch.nn.functional.avg_pool2d(scenes.flow(first, third), 2) / 2
    torch.testing.assert_close(find(*halves), whole, atol=1e-4, rtol=0)
    with pytest.raises(ImageError, match=r"backward_3_2\.flo': no such file"):
        find(third, Frame(2, clip[1:2]))


def test_raft_is_torchvisions(tmp_path, monkeypatch):
    from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    pictures = torch.rand(2, 1, 3, 128, 136, generator=torch.Generator().manual_seed(0))
    with pytest.raises(VggfeatError, match="weights of RAFT are not at hand: download https"):
        optical_flow(*pictures, method="raft")
    torch.manual_seed(0)
    network = raft_small(weights=None).eval()
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / Raft_Small_Weights.DEFAULT.url.rpartition("/")[2])
    with torch.no_grad():
        expected = network(*(pictures * 2 - 1))[-1]
    torch.testing.assert_close(optical_flow(*pictures, method="raft"), expected)
    small = optical_flow(*pictures[..., :70, :100], method="raft")
    assert small.shape == (1, 2, 70, 100)


def test_pictures_that_do_not_fit_are_refused():
    picture = torch.rand(1, 3, 20, 20)
    with pytest.raises(InputError, match="of one size"):
        optical_flow(picture, picture[..., :18])
    with pytest.raises(InputError, match="12x20 is too small"):
        optical_flow(*[picture[..., :12]] * 2)
    with pytest.raises(InputError, match="unknown method 'TVL1': did you mean tvl1"):
        optical_flow(picture, picture, "TVL1")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(VggfeatError, match=r'pip install "vggfeat\[video\]"'):
        flow_function("tvl1")
