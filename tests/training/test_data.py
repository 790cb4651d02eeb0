import sys

import pytest
import torch
from PIL import Image
from torchvision.models import VGG16_Weights
from torchvision.transforms.functional import pil_to_tensor, resize

from vggfeat.errors import InputError, VggfeatError
from vggfeat.pictures import images
from vggfeat.training.data import load_data
from vggfeat.training.dataset import Pictures


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    found = load_data("digits", size=8, held_out=0.25, seed=1)
    assert (len(found.train), len(found.held_out), found.classes) == (1347, 450, tuple("0123456789"))
    pixels = torch.cat([found.train.kept, found.held_out.kept])
    expected = torch.from_numpy(load_digits().images / 16 * 255).round().to(torch.uint8)
    assert pixels.shape == (1797, 3, 8, 8)
    assert pixels[:, 0].long().sum() == expected.long().sum()
    one = found.train.kept[5, 0]
    place = (expected == one).all((1, 2)).nonzero()[0].item()
    assert load_digits().target[place] == found.train.labels[5]


def test_the_split_is_seeded_and_holds_each_class():
    one, same, other = (load_data("digits", size=8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.held_out.kept, same.held_out.kept)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert not torch.equal(one.held_out.kept, other.held_out.kept)
    shares = torch.bincount(one.held_out.labels) / torch.bincount(torch.cat([one.train.labels, one.held_out.labels]))
    assert (shares - 0.2).abs().max() < 0.01


def test_folders_hold_out_a_share(make_folder, tmp_path):
    found = load_data(make_folder(tmp_path / "pictures"), size=16, held_out=0.25)
    assert found.classes == ("across", "down")
    assert found.train.labels.tolist() == [0] * 6 + [1] * 6
    assert found.held_out.labels.tolist() == [0, 0, 1, 1]
    assert found.train.kept.shape == (12, 3, 18, 18)
    assert not {*found.train.paths} & {*found.held_out.paths}


@pytest.mark.parametrize("name", ["val", "test", "validation"])
def test_folders_with_a_split_keep_it(name, make_folder, tmp_path):
    make_folder(tmp_path / "train")
    make_folder(tmp_path / name, count=3)
    found = load_data(tmp_path, size=16)
    assert (len(found.train), len(found.held_out)) == (16, 6)
    assert all(path.parts[-3] == name for path in found.held_out.paths)


def test_damaged_pictures_are_named_and_left_out(make_folder, tmp_path):
    folder = make_folder(tmp_path / "pictures")
    (folder / "down" / "3.png").write_bytes(b"not a picture")
    whole = (folder / "across" / "2.png").read_bytes()
    (folder / "across" / "2.png").write_bytes(whole[: len(whole) // 2])
    (folder / "across" / "notes.txt").write_text("read by nobody")
    (folder / "across" / ".hidden.png").write_bytes(b"")
    seen = []
    found = load_data(folder, size=16, report=lambda done, total: seen.append((done, total)))
    assert set(found.skipped) == {str(folder / "down" / "3.png"), str(folder / "across" / "2.png")}
    assert "not a picture" in found.skipped[str(folder / "down" / "3.png")]
    assert len(found.train) + len(found.held_out) == 14
    assert seen[-1] == (16, 16)


def test_pictures_that_are_not_kept_are_read_each_time(make_folder, tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "pictures")
    (folder / "down" / "3.png").write_bytes(b"not a picture")
    kept = load_data(folder, size=16)
    monkeypatch.setattr("vggfeat.training.folder.KEPT_BYTES", 0)
    read = load_data(folder, size=16)
    assert read.train.kept is None
    assert read.fingerprint == kept.fingerprint
    batches = [[0, 3], [5], [], *([index] for index in range(6))]
    for (a, b), (c, d) in zip(kept.train.batches(batches), read.train.batches(batches[:2] + batches[3:]), strict=False):
        if len(b):
            assert torch.equal(a, c)
            assert torch.equal(b, d)
        else:
            break
    assert kept.train.mean_std() == read.train.mean_std()
    monkeypatch.setattr("vggfeat.training.folder.read_square", None)  # a resumed run knows what is damaged
    again = load_data(folder, size=16, skip=list(read.skipped))
    assert again.fingerprint == read.fingerprint
    assert set(again.skipped) == set(read.skipped)


def test_mean_and_deviation_are_those_of_the_pictures():
    pixels = torch.randint(0, 256, (5, 3, 7, 7), dtype=torch.uint8)
    pixels[:, 2] = 51
    mean, std = Pictures(torch.zeros(5), 7, pixels).mean_std()
    unit = pixels.double() / 255
    assert mean == pytest.approx(unit.mean((0, 2, 3)).tolist(), abs=1e-5)
    assert std[:2] == pytest.approx(unit.std((0, 2, 3), correction=0).tolist()[:2], abs=1e-5)
    assert std[2] == 1.0


def test_pictures_come_as_torchvisions_presets_bring_them(tmp_path):
    rgb = torch.rand(1, 3, 300, 411, generator=torch.Generator().manual_seed(0))
    images.write_picture(tmp_path / "x.png", rgb)
    with Image.open(tmp_path / "x.png") as picture:
        preset = VGG16_Weights.IMAGENET1K_V1.transforms()
        expected = preset(pil_to_tensor(picture).float() / 255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    ours = images.middle_square(images.read_picture(tmp_path / "x.png").rgb, 256, 224)[0]
    torch.testing.assert_close((ours - mean) / std, expected)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("empty", "class 'down' has no pictures in '.*down' that can be read (0 damaged): it needs 2"),
        ("damaged", "class 'down' has no pictures in '.*down' that can be read (8 damaged): it needs 2"),
        ("one", "class 'down' has 1 picture in '.*down' that can be read (0 damaged): it needs 2"),
        ("alone", "has 1 class folders: a class is a folder of pictures, two are needed"),
        ("absent", "no data '.*': pass a folder, stl10 or digits"),
        ("unlike", "have different classes: down"),
    ],
)
def test_refusals(damage, message, make_folder, tmp_path):
    import re
    import shutil

    folder = make_folder(tmp_path / "train")
    pictures = sorted((folder / "down").iterdir())
    match damage:
        case "empty" | "one":
            for path in pictures[damage == "one" :]:
                path.unlink()
        case "damaged":
            for path in pictures:
                path.write_bytes(b"x")
        case "alone":
            shutil.rmtree(folder / "down")
        case "absent":
            folder = tmp_path / "nothing"
        case "unlike":
            make_folder(tmp_path / "val", classes=("across",))
            folder = tmp_path
    pattern = re.escape(message).replace(re.escape(".*"), ".*")
    with pytest.raises(InputError, match=pattern):
        load_data(folder, size=16)


@pytest.mark.parametrize("size", [0, 48])
def test_stl10_is_torchvisions(size, monkeypatch, tmp_path):
    """With a stand-in for the download of 2.6 GB: the same attributes, as torchvision reads them from its file."""
    import numpy as np

    class Theirs:
        classes = ["airplane", "bird"]  # noqa: RUF012 (as torchvision has it)

        def __init__(self, root, *, split, download):
            assert (root, download) == (tmp_path, True)
            count = {"train": 6, "test": 4}[split]
            self.data = np.random.default_rng(count).integers(0, 256, (count, 3, 96, 96)).astype(np.uint8)
            self.labels = np.arange(count) % 2

    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path))
    monkeypatch.setattr("torchvision.datasets.STL10", Theirs)
    found = load_data("stl10", size=size)
    assert (len(found.train), len(found.held_out), found.classes) == (6, 4, ("airplane", "bird"))
    assert found.train.kept.shape == (6, 3, size or 96, size or 96)
    expected = torch.from_numpy(Theirs(tmp_path, split="train", download=True).data)
    if size:
        expected = resize(expected.float(), [size, size], antialias=True)
        assert (found.train.kept.float() - expected).abs().max() < 0.51
    else:
        assert torch.equal(found.train.kept, expected)
    assert found.train.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(VggfeatError, match=r'pip install "vggfeat\[train\]"'):
        load_data("digits")
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path))

    def offline(*_arguments, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.stl10.download_and_extract_archive", offline)
    with pytest.raises(VggfeatError, match=r"STL10 could not be downloaded \(no route to host\)"):
        load_data("stl10")
