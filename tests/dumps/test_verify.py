import os
import tarfile

import numpy as np
import pytest
import torch

import vggfeat
from vggfeat import files
from vggfeat.dumps.verify import verify

from .conftest import QUICK

OPTIONS = QUICK | {"layers": "relu1_1,relu2_1", "reduce": "mean", "shard_size": 4}


@pytest.fixture
def out(pictures, tmp_path):
    return vggfeat.dump(pictures, tmp_path / "out", **OPTIONS).path


def wrong(out, **options):
    return {check.what: check.error for check in verify(out, device="cpu", **options)}


@pytest.mark.parametrize("change", ["swapped", "failed", "another hash"])
def test_a_manifest_that_is_not_that_of_the_receipts_is_told(change, out):
    path = out / "manifest.csv"
    head, *lines = path.read_text().splitlines(keepends=True)
    match change:
        case "swapped":
            lines[0], lines[1] = lines[1], lines[0]
        case "failed":
            lines[0] = lines[0].replace(",ok,", ",failed,")
        case "another hash":
            lines[0] = lines[0].replace(lines[0].split(",")[2], "0" * 64)
    path.write_text(head + "".join(lines))
    assert "entries of shard 0 differ from the receipt's: the command" in wrong(out, rows=0)["manifest"]
    path.write_text(head + "".join([*lines[4:], *lines[:4]]))
    assert "manifest" in wrong(out, rows=0)


def test_a_missing_file_is_one_finding_of_many(out):
    (out / "relu1_1.mean/000000.npy").unlink()
    data = bytearray((out / "relu2_1.mean/000001.npy").read_bytes())
    data[-1] ^= 2
    (out / "relu2_1.mean/000001.npy").write_bytes(data)
    found = wrong(out, rows=100)
    assert "missing or truncated" in found["shard 0"]
    assert found["relu2_1.mean/000001.npy"].endswith("delete it, and the command that made the dump recomputes it")
    assert not [what for what in found if what.endswith(("000.png", "001.jpg", "002.png", "003.jpg"))]
    assert next(error for what, error in found.items() if what.endswith("007.jpg")).startswith("relu2_1.mean differs")


def test_all_arrays_that_differ_are_told(out):
    for layer in ("relu1_1", "relu2_1"):
        path = out / f"{layer}.mean/000000.npy"
        array = np.load(path)
        np.save(path, array + 1)
    errors = [error for what, error in wrong(out, rows=100).items() if what.endswith("000.png")]
    assert len(errors) == 1
    assert "relu1_1.mean differs" in errors[0]
    assert "relu2_1.mean differs" in errors[0]


def test_names_of_a_tar_file_in_any_manner(pictures, tmp_path):
    names = ["./000.png", "./a/../001.jpg", "002.png", "002.png", "002.png"]
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for number, name in enumerate(names):
            archive.add(sorted(pictures.iterdir())[number], name)
    out = vggfeat.dump(tmp_path / "set.tar", tmp_path / "packed", **OPTIONS).path
    assert wrong(out) == {}
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(pictures / "000.png", "./000.png")
    found = wrong(out)
    assert len(found) == 2  # of two names
    assert all("no longer holds" in error for error in found.values())


def test_weights_in_a_file_are_found_from_another_folder(pictures, tmp_path, monkeypatch):
    torch.save(vggfeat.weights.load("vgg11", None)[0], tmp_path / "own.pth")
    monkeypatch.chdir(tmp_path)
    out = vggfeat.dump(pictures, "own", **OPTIONS | {"weights": "own.pth"}).path.absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert wrong(out, rows=2) == {}
    assert len(vggfeat.dump(pictures, out, **OPTIONS | {"weights": tmp_path / "own.pth"})) == 11


def test_a_file_that_cannot_be_read_is_told(out, monkeypatch):
    unreadable = out / "relu1_1.mean/000000.npy"
    whole = files.sha256

    def refuse(path):
        if path == unreadable:
            raise PermissionError(13, os.strerror(13), str(path))
        return whole(path)

    monkeypatch.setattr(files, "sha256", refuse)
    assert wrong(out, rows=0) == {"relu1_1.mean/000000.npy": "it cannot be read: permission denied"}
