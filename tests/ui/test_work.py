from dataclasses import replace

import pytest
import torch

from vggfeat import InputError
from vggfeat.explore import view
from vggfeat.pictures import images
from vggfeat.transfer.recipe import RECIPES
from vggfeat.transfer.record import read_record
from vggfeat.ui import work
from vggfeat.ui.limits import Limits
from vggfeat.ui.page_runs import PageRun

QUICK = replace(
    RECIPES["preview"],
    network="vgg16",
    steps=3,
    size=64,
    margin=0,
    content_layers={"relu2_2": 1.0},
    style_layers={"relu1_1": 1.0},
)


def test_a_run_ends_with_its_file_and_recipe(send, tmp_path):
    content, style = send("photo.png"), send("style.png", seed=1)
    found = list(work.paint(content, style, QUICK, PageRun(), tmp_path / "out"))
    assert [each.file is None for each in found[:-1]] == [True] * (len(found) - 1)
    last = found[-1]
    assert [len(values) for values in last.losses.values()] == [3] * len(last.losses)
    assert last.losses["total"][-1] == last.progress.losses["total"]
    assert last.file == tmp_path / "out" / "photo-style.png"
    assert not last.stopped
    assert last.progress.step == 3
    kept = read_record(last.file)
    assert kept.recipe == QUICK
    assert [(each.role, each.file) for each in kept.inputs] == [("content", "photo.png"), ("style", "style.png")]
    assert (images.read_picture(last.file).rgb - last.image).abs().max() < 0.51 / 255


def test_a_transparent_photograph_stays_transparent(send, tmp_path):
    content = send("photo.png", alpha=True)
    last = list(work.paint(content, send("style.png", seed=1), QUICK, PageRun(), tmp_path))[-1]
    assert torch.equal(images.read_picture(last.file).alpha, content.picture.alpha)
    assert last.alpha is not None


def test_stopping_keeps_the_picture_as_it_stands(send, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "INTERVAL", 0)
    page_run = PageRun()
    run = work.paint(send("a.png"), send("b.png", seed=1), replace(QUICK, steps=50), page_run, tmp_path)
    next(run)
    page_run.stopped = True
    last = list(run)[-1]
    assert last.stopped
    assert last.file.exists()
    assert last.progress.step == 1


def test_nothing_is_written_once_the_page_is_gone(send, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "INTERVAL", 0)
    page_run = PageRun()
    run = work.paint(send("a.png"), send("b.png", seed=1), replace(QUICK, steps=50), page_run, tmp_path / "out")
    next(run)
    page_run.abandoned = True
    assert list(run) == []
    assert not (tmp_path / "out").exists()


def test_the_grid_has_a_tile_for_every_channel(send):
    upload = send("photo.png", 64, 96)
    explorer = work.Explorer(Limits())
    grid = explorer.grid(upload, "vgg16", "relu2_1", side=24)
    features = view.inspect(images.flatten(upload.picture), "relu2_1").features["relu2_1"]
    assert len(grid.peaks) == 128
    assert grid.peaks == pytest.approx(features[0].amax((1, 2)).tolist())
    assert grid.tiles.shape == (128, 3, 16, 24)
    torch.testing.assert_close(grid.tiles[37:38], images.resize(view.channel_maps(features, [37]), 16, 24))
    # Deep layers, whose channels are smaller than their tiles, too.
    assert explorer.grid(upload, "vgg16", "relu4_1", side=24).tiles.shape == (512, 3, 16, 24)


def test_the_explorer_keeps_only_the_last_layers(send):
    upload, explorer = send(), work.Explorer(Limits())
    first = explorer.inspection(upload, "vgg16", "relu1_1")
    assert explorer.inspection(upload, "vgg16", "relu1_1") is first
    for layer in ("relu1_2", "relu2_1"):
        explorer.inspection(upload, "vgg16", layer)
    assert explorer.inspection(upload, "vgg16", "relu1_1") is not first
    picture, over = explorer.channel(upload, "vgg16", "relu2_1", 5)
    assert picture.shape == over.shape == (1, 3, 48, 64)


def test_comparing_a_picture_with_itself(send):
    upload = send()
    found = work.compared(upload, upload, Limits())
    assert found.values["psnr"] == float("inf")
    assert found.values["lpips-vgg"] == pytest.approx(0, abs=1e-6)
    assert found.values["dists"] == pytest.approx(0, abs=1e-5)
    assert found.notes == ()


def test_comparing_resizes_the_second_and_says_so(send):
    large, small = send("large.png", 60, 90), send("small.png", 48, 64, seed=3, alpha=True)
    found = work.compared(large, small, Limits(analysed=45))
    assert found.a.shape == found.b.shape == found.heat.shape == (1, 3, 30, 45)
    assert len(found.notes) == 3
    assert found.values["lpips-vgg"] > 0.01


def test_pictures_that_are_too_small_are_refused(send):
    tiny = send("tiny.png", 8, 200)
    with pytest.raises(InputError, match="too small"):
        work.compared(tiny, tiny, Limits())
    with pytest.raises(InputError, match="too small"):
        work.Explorer(Limits()).grid(tiny, "vgg16", "relu5_1")
