import pytest
import torch

from vggfeat.transfer.tiles import Blocks, Tile


def test_a_tile_is_a_view_of_its_plane():
    plane = torch.arange(20.0).view(1, 1, 4, 5)
    tile = Tile(1, 3, 2, 5)
    assert torch.equal(tile.view(plane), plane[:, :, 1:3, 2:5])
    assert torch.equal(tile.crop(plane), plane[:, :, 1:3, 2:5])
    assert tile.area == 6
    assert torch.equal(Tile.covering(plane).view(plane), plane)
    tile.view(plane).zero_()
    assert plane.count_nonzero() == 20 - 6 - 1


def test_a_halo_ends_at_the_edge_of_the_plane():
    assert Tile(2, 4, 3, 9).grown(3, 6, 10) == Tile(0, 6, 0, 10)
    assert Tile(4, 6, 4, 6).grown(2, 100, 100) == Tile(2, 8, 2, 8)


def test_a_pooling_shrinks_a_tile():
    assert Tile(2, 6, 4, 8).shrunk(2, 50, 50) == Tile(1, 3, 2, 4)
    assert Tile(2, 7, 4, 7).shrunk(2, 3, 50) == Tile(1, 3, 2, 4)


def test_a_tile_in_the_coordinates_of_another():
    plane = torch.arange(100.0).view(1, 1, 10, 10)
    outer, inner = Tile(2, 9, 3, 8), Tile(4, 6, 5, 7)
    assert torch.equal(inner.relative_to(outer).view(outer.view(plane)), inner.view(plane))


def test_tiles_that_do_not_meet_share_nothing():
    assert Tile(0, 2, 0, 2).within(Tile(3, 5, 0, 2)).area == 0


@pytest.mark.parametrize(("channels", "side"), [(64, 128), (128, 90), (256, 64), (512, 46)])
def test_tiles_of_more_channels_have_fewer_positions(channels, side):
    assert Blocks(128).side_in(channels) == side
    assert Blocks(2).side_in(channels) == 8
