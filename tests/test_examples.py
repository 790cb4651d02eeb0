"""Every script of examples/ runs as it stands."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.transforms.functional import center_crop

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
GAN = EXAMPLES / "gan_super_resolution.py"


def run(script, *arguments):
    """What the script prints, on the CPU."""
    command = [sys.executable, "-W", "error", str(script), *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def scores(printed):
    """{method: (LPIPS-alex, LPIPS-vgg, PSNR)} of what the script printed."""
    rows = re.findall(r"^(.+?) +([\d.]+) +([\d.]+) +([\d.]+) dB$", printed, re.MULTILINE)
    return {name: tuple(map(float, numbers)) for name, *numbers in rows}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The folder and the output of a run of four steps, of which the last two train the GAN."""
    out = tmp_path_factory.mktemp("short")
    return out, run(GAN, "--steps", 4, "--out", out)


def test_there_is_no_example_without_a_test():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        GAN.name,
        "digits.py",
        "fine_tune.py",
        "linear_probe.py",
        "perceptual_loss.py",
    }


@pytest.mark.slow
def test_perceptual_loss_goes_down():
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", run(EXAMPLES / "perceptual_loss.py"))]
    assert len(losses) == 5
    assert losses[-1] < 0.7 * losses[0]


def test_perceptual_loss_marks_the_three_lines():
    lines = (EXAMPLES / "perceptual_loss.py").read_text(encoding="utf-8").splitlines()
    assert [line[-1] for line in lines if re.search(r"  # \d$", line)] == ["1", "2", "3"]


@pytest.mark.slow
def test_super_resolution_prints_scores_and_saves_the_comparison(short):
    from PIL import Image

    out, printed = short
    assert list(scores(printed)) == ["bicubic", "L1", "L1 + perceptual + GAN"]
    assert "content" in printed
    assert "adversarial" in printed
    with Image.open(out / "comparison.png") as picture:
        assert picture.size == (4 * 256, 6 * 256 + 32)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", "comparison.png"]


@pytest.mark.slow
def test_super_resolution_keeps_vgg_out_of_the_checkpoint(short):
    out, printed = short
    state = torch.load(out / "checkpoint.pt", weights_only=True)["modules"]
    assert {key.partition(".")[0] for key in state} == {"plain", "generator", "discriminator"}
    assert f"{len(state)} tensors, 0 of them VGG's" in printed


@pytest.mark.slow
def test_super_resolution_resumes_exactly(short, tmp_path):
    run(GAN, "--steps", 4, "--stop-at", 3, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    resumed = run(GAN, "--steps", 4, "--resume", "--out", tmp_path)
    ours, theirs = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (tmp_path, short[0]))
    assert ours["step"] == theirs["step"] == 4
    assert torch.equal(ours["random"], theirs["random"])
    for name, tensor in theirs["modules"].items():
        assert torch.equal(ours["modules"][name], tensor), name
    for mine, other in zip(ours["optimizers"], theirs["optimizers"], strict=True):
        for number, values in other["state"].items():
            assert all(torch.equal(mine["state"][number][key], value) for key, value in values.items())
    assert scores(resumed) == scores(short[1])


def test_super_resolution_never_trains_on_what_it_holds_out():
    example = runpy.run_path(str(GAN))
    torch.manual_seed(0)
    for shape in ((512, 512), (300, 451), (427, 640)):
        photograph = torch.zeros(3, *shape)
        center_crop(photograph, [example["HELD_OUT"]] * 2)[:] = 1
        assert photograph.sum() == 3 * example["HELD_OUT"] ** 2
        crops = [example["draw_crop"]([photograph]) for _ in range(300)]
        assert {crop.shape for crop in crops} == {(3, example["CROP"], example["CROP"])}
        assert not torch.stack(crops).any()


@pytest.mark.slow
def test_fine_tuning_runs_through(tmp_path):
    printed = run(EXAMPLES / "fine_tune.py", "--out", tmp_path, "--crops", 2, "--epochs", 1)
    assert "relu5_3 of the tuned network: (1, 512, 6, 6)" in printed
    assert (tmp_path / "run" / "best.safetensors").exists()


@pytest.mark.slow
def test_digits_are_learnt_and_looked_at(tmp_path):
    from PIL import Image

    pytest.importorskip("sklearn")
    printed = run(EXAMPLES / "digits.py", "--out", tmp_path)
    assert max(float(share) for share in re.findall(r"held out ([\d.]+)%", printed)) >= 98
    listed = re.findall(r"^(\d): (.+)$", printed, re.MULTILINE)
    assert [digit for digit, _ in listed] == list("0123456789")
    channels = [int(word) for _, words in listed for word in words.split(", ") if word != "none"]
    assert sorted(channels) == list(range(64))
    for name in ("three.png", "eight.png"):
        with Image.open(tmp_path / name) as page:
            assert page.height > 1000


@pytest.mark.slow
def test_fine_tuning_tells_paintings_from_photographs(tmp_path):
    printed = run(EXAMPLES / "fine_tune.py", "--out", tmp_path)
    assert max(float(share) for share in re.findall(r"held out ([\d.]+)%", printed)) >= 85
    assert "woodcut: painting" in printed
    assert "china: photograph" in printed


def probed(*arguments):
    """{features: accuracy} of what the linear probe prints."""
    pytest.importorskip("sklearn")
    printed = run(EXAMPLES / "linear_probe.py", *arguments)
    return {name: float(value) for name, value in re.findall(r"^(.+?) +(0\.\d+|1\.0+)$", printed, re.MULTILINE)}


@pytest.mark.slow
def test_linear_probe_goes_on_with_its_dump(tmp_path):
    first = probed("--pictures", 60, "--out", tmp_path)
    assert list(first) == ["raw pixels", "relu2_2", "relu3_3", "relu4_3"]
    assert all(value > 0.5 for value in first.values())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(before) == 3
    assert probed("--pictures", 60, "--out", tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == before


@pytest.mark.slow
def test_linear_probe_sees_more_in_features_than_in_pixels():
    found = probed()
    assert found["relu4_3"] > found["raw pixels"] > 0.95


@pytest.mark.slow
def test_super_resolution_looks_better_with_perceptual_loss(tmp_path):
    found = scores(run(GAN, "--steps", 600, "--out", tmp_path))  # a third of its default shows it too
    plain, perceptual = found["L1"], found["L1 + perceptual + GAN"]
    assert perceptual[0] < 0.85 * plain[0]
    assert perceptual[1] < 0.95 * plain[1]
    assert plain[2] > found["bicubic"][2]
