import numpy as np
import pytest
import torch

import vggfeat
from vggfeat import ImageError, InputError, read_picture, write_picture
from vggfeat.dumps.errors import StoreError
from vggfeat.explore.pages.patches import sheet
from vggfeat.explore.patches import most_activating
from vggfeat.networks import arch

QUICK = {"network": "vgg11", "layers": "relu1_1,relu2_1", "weights": None, "resize": 32, "workers": 0, "device": "cpu"}


@pytest.fixture
def dumped(tmp_path):
    """Six pictures of noise, and what a small network makes of them, in full."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        write_picture(folder / f"{number}.png", noise)
    vggfeat.dump(folder, tmp_path / "out", reduce="full", statistics=True, **QUICK)
    return tmp_path / "out"


@pytest.mark.parametrize(("layer", "channel"), [("relu1_1", 5), ("relu2_1", 100), ("relu2_1", 7)])
def test_the_strongest_positions_are_those_of_the_stored_features(dumped, layer, channel):
    features = vggfeat.open_dump(dumped)[layer, "full"]
    stored = np.stack([row[channel] for row in features])
    peaks = stored.reshape(6, -1).max(1)
    order = np.argsort(-peaks, kind="stable")
    found = most_activating(dumped, layer, channel, device="cpu")
    assert [patch.id for patch in found] == [features.ids[place] for place in order]
    for patch, place in zip(found, order, strict=True):
        assert patch.value == pytest.approx(peaks[place], rel=1e-4)
        assert (patch.field.y, patch.field.x) == np.unravel_index(stored[place].argmax(), stored[place].shape)
    assert [patch.id for patch in most_activating(dumped, layer, channel, top=2, device="cpu")] == [
        patch.id for patch in found[:2]
    ]


def test_a_patch_is_all_that_its_position_sees(dumped):
    patch = most_activating(dumped, "relu2_1", 7, top=1, device="cpu")[0]
    side = arch.find_layers("vgg11", "relu2_1")[0].receptive_field
    crop = patch.crop()
    assert crop.shape == (1, 3, side, side)
    whole = torch.full((1, 3, 32 + 2 * side, 32 + 2 * side), 0.3)
    whole[..., side : side + 32, side : side + 32] = patch.picture
    top, left = patch.field.top + side, patch.field.left + side
    assert torch.equal(crop, whole[..., top : top + side, left : left + side])
    # The rest of the picture may change: the activation does not.
    changed = torch.rand_like(patch.picture)
    rows, columns = (
        slice(max(0, patch.field.top), patch.field.bottom),
        slice(max(0, patch.field.left), patch.field.right),
    )
    changed[..., rows, columns] = patch.picture[..., rows, columns]
    extract = vggfeat.FeatureExtractor("vgg11", "relu2_1", weights=None)
    assert float(extract(changed)["relu2_1"][0, 7, patch.field.y, patch.field.x]) == pytest.approx(
        patch.value, rel=1e-4
    )


def test_what_cannot_be_shown_is_told(dumped, tmp_path):
    with pytest.raises(InputError, match="no channel 64 in relu1_1: choose from 0 to 63"):
        most_activating(dumped, "relu1_1", 64)
    with pytest.raises(InputError, match="unknown layer 'relu1_2' of the dump"):
        most_activating(dumped, "relu1_2", 0)
    with pytest.raises(StoreError, match="is not a dump"):
        most_activating(tmp_path, "relu1_1", 0)
    vggfeat.dump(tmp_path / "pictures", tmp_path / "plain", reduce="mean", **QUICK)
    with pytest.raises(StoreError, match="has no statistics"):
        most_activating(tmp_path / "plain", "relu1_1", 0)
    for file in (tmp_path / "pictures").iterdir():
        write_picture(file, torch.rand(1, 3, 32, 32))
    with pytest.raises(ImageError, match="has changed since it was dumped"):
        most_activating(dumped, "relu1_1", 0, device="cpu")


def test_the_page_shows_every_patch(dumped):
    found = most_activating(dumped, "relu2_1", 7, device="cpu")
    layer = arch.find_layers("vgg11", "relu2_1")[0]
    page = sheet(found, layer, 7, title="'out'")
    assert page.shape[3] == 2 * 36 + 6 * 268 - 18
    for number, patch in enumerate(found):
        middle = patch.crop()[..., layer.receptive_field // 2, layer.receptive_field // 2]
        x = 36 + number * 268 + 125
        assert (page[..., 118 + 125, x] - middle).abs().max() < 0.01
    with pytest.raises(InputError, match="no picture"):
        sheet([], layer, 7, title="")


def test_the_command(dumped, tmp_path, monkeypatch):
    from click.testing import CliRunner
    from vggfeat_cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(main, ["show", *map(str, arguments)])

    result = run("--dump", "out", "--layer", "relu2_1", "--channel", 7, "--device", "cpu")
    assert result.output == "out-relu2_1-7.png\n"
    page = sheet(most_activating(dumped, "relu2_1", 7, device="cpu"), "relu2_1", 7, title="'out'")
    assert (read_picture("out-relu2_1-7.png").rgb - page).abs().max() < 0.51 / 255
    for arguments, words in (
        (["--layer", "relu1_1"], "give an IMAGE, or --dump DUMP"),
        (["pictures/0.png", "--layer", "relu1_1", "--channel", 3], "give an IMAGE, or --dump DUMP"),
        (["pictures/0.png", "--dump", "out", "--layer", "relu1_1", "--channel", 3], "cannot be combined with IMAGE"),
        (["--dump", "out", "--layer", "relu1_1"], "needs one --layer and a --channel"),
        (["--dump", "out", "--layer", "relu1_1", "--channel", 3, "--at", "1,1"], "cannot be combined with --at"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
