import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vggfeat import FeatureExtractor, open_dump, write_picture
from vggfeat.training.recipe import TrainingRecipe

TINY = ("--network", "4,M,8", "--size", 8, "--epochs", 2, "--batch-size", 256, "--device", "cpu")


def test_trains_and_says_where(vggfeat):
    result = vggfeat("train", "--data", "digits", *TINY)
    assert result.stdout == "digits-4,M,8/best.safetensors\n"
    lines = result.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2", "best"]
    assert Path("digits-4,M,8/metrics.csv").read_text().count("\n") == 3


def test_json_and_resume(vggfeat):
    first = json.loads(vggfeat("train", "--data", "digits", *TINY, "-o", "out", "--json", "--quiet").stdout)
    assert first["network"] == "4,M,8"
    assert set(first["class_accuracy"]) == set("0123456789")
    assert "holds a run: resume it" in vggfeat("train", "--data", "digits", *TINY, "-o", "out", code=2).stderr
    again = vggfeat("train", "--data", "digits", *TINY, "-o", "out", "--resume", "--json", "--quiet")
    assert json.loads(again.stdout)["accuracy"] == first["accuracy"]


def test_every_field_of_a_recipe_is_an_option_with_its_default(vggfeat):
    text = " ".join(vggfeat("train", "--help").output.split())
    for option in (
        "--from",
        "--freeze",
        "--batch-norm / --no-batch-norm",
        "--label-smoothing",
        "--warmup",
        "--patience",
    ):
        assert option in text
    assert f"[default: {TrainingRecipe().epochs};" in text or f"[default: {TrainingRecipe().epochs}]" in text


def test_a_trained_network_is_used_by_the_other_commands(vggfeat):
    vggfeat(
        "train", "--data", "digits", *TINY[:-2], "-o", "out", "--activation", "leaky_relu", "--batch-norm", "--quiet"
    )
    weights = "out/best.safetensors"
    for name in ("a.png", "b.png"):
        write_picture(name, torch.rand(1, 3, 40, 40))
    vggfeat(
        *(
            "stylize",
            "a.png",
            "b.png",
            "--weights",
            weights,
            "--content-layers",
            "relu2_1",
            "--style-layers",
            "relu1_1",
        ),
        *("--size", 32, "--first-size", 32, "--steps", 2, "-o", "out.png", "--quiet"),
    )
    assert Path("out.png").exists()
    assert len(json.loads(vggfeat("classify", "a.png", "--weights", weights, "--json").stdout)[0]["predictions"]) == 5
    vggfeat("show", "a.png", "--layer", "relu2_1", "--weights", weights, "-o", "seen.png")
    assert Path("seen.png").exists()
    vggfeat("dump", "a.png", "b.png", "--layers", "relu2_1", "--weights", weights, "-o", "dump", "--quiet")
    assert open_dump("dump")["relu2_1"].shape == (2, 8, 112, 112)
    vggfeat("match", "a.png", "b.png", "--layer", "relu2_1", "--weights", weights, "-o", "match.png")
    assert Path("match.png").exists()
    extract = FeatureExtractor("auto", "relu2_1", weights=weights)
    assert extract.network == "4,M,8+bn+leaky_relu:0.01"


def test_damaged_pictures_are_named(vggfeat):
    for name, level in (("dark", 0.2), ("light", 0.8)):
        Path("data", name).mkdir(parents=True)
        for number in range(4):
            write_picture(f"data/{name}/{number}.png", torch.full((1, 3, 10, 10), level))
    Path("data/dark/3.png").write_text("no picture")
    result = vggfeat("train", "--data", "data", *TINY)
    assert result.stderr.startswith("skipped 'data/dark/3.png': cannot read")
    for path in Path("data/dark").iterdir():
        path.unlink()
    message = vggfeat("train", "--data", "data", *TINY, "-o", "other", code=2).stderr
    assert "class 'dark' has no pictures" in message
    assert not Path("other").exists()


def test_errors(vggfeat):
    assert "no data 'absent': pass a folder, stl10 or digits" in vggfeat("train", "--data", "absent", code=2).stderr
    assert "unknown network 'vgg12'" in vggfeat("train", "--data", "digits", "--network", "vgg12", code=2).stderr
    assert "did you mean relu1_1" in vggfeat("train", "--data", "digits", "--freeze", "rellu1_1", code=2).stderr


def test_ctrl_c_keeps_a_checkpoint(spawn, tmp_path):
    arguments = ("train", "--data", "digits", *TINY[:4], "--epochs", 400, *TINY[6:], "-o", "out")
    process = spawn(*arguments)
    assert process.stderr.readline().startswith("epoch 1/400")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: 'out' holds a checkpoint; --resume continues from it"
    done = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert len(done["history"]) == done["epoch"] < 400


@pytest.mark.slow
def test_torchrun_shares_the_batches_out(tmp_path):
    arguments = [
        "train",
        "--data",
        "digits",
        *map(str, TINY),
        "--precision",
        "float32",
        "--batch-norm",
        "--optimiser",
        "sgd",
    ]
    arguments += ["--learning-rate", "0.05", "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    starter = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "vggfeat_cli",
    ]
    for start, name in ((starter, "two"), ([sys.executable, "-m", "vggfeat_cli"], "one")):
        subprocess.run([*start, *arguments, "-o", name], cwd=tmp_path, env=environment, check=True)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-5)
