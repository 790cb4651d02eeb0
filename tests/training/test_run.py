import csv
import json
import multiprocessing
import random
import signal
import time
import zipfile

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from vggfeat import FeatureExtractor
from vggfeat.errors import InputError, RecipeError
from vggfeat.features.device import describe
from vggfeat.networks import network, weights
from vggfeat.training.data import load_data
from vggfeat.training.recipe import TrainingRecipe
from vggfeat.training.run import count_batches, train

TINY = {"network": "4,M,8", "batch_norm": True, "size": 8, "epochs": 2, "batch_size": 256, "learning_rate": 0.01}


def tiny(**changes):
    return TrainingRecipe(**{**TINY, **changes})


def digits(output, recipe=None, **options):
    return train("digits", output, recipe or tiny(), **{"device": "cpu", "precision": "float32", **options})


def same(one, other):
    a, b = (load_file(folder / "last.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_learns_and_leaves_everything(tmp_path):
    run = digits(tmp_path / "out", tiny(epochs=6, network="8,M,16", augment="none", batch_size=128))
    seen = list(run)
    ends = [progress for progress in seen if progress.evaluation]
    assert [(progress.epoch, progress.step) for progress in ends] == [(n, 12) for n in range(1, 7)]
    assert len(seen) == 6 * 12
    assert ends[-1].evaluation.loss < 0.8 * ends[0].evaluation.loss
    assert run.best.accuracy > 0.6
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("best.safetensors", "last.safetensors", "checkpoint.pt", "metrics.csv", "classes.csv", "confusion.csv"),
        *("report.json", "curves.png", "confusion.png", "classes.png"),
    }
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows[-1]["held_out_accuracy"]) == pytest.approx(ends[-1].evaluation.accuracy, rel=1e-4)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["machine"] == {**describe(torch.device("cpu")), "precision": "float32"}
    assert report["best"]["accuracy"] == run.best.accuracy == max(row["held_out_accuracy"] for row in report["history"])
    assert sum(map(sum, report["best"]["confusion"])) == report["held_out_pictures"] == len(run.data.held_out)
    with Image.open(tmp_path / "out" / "curves.png") as picture:
        assert picture.size == (1280, 400)


def test_the_written_network_is_the_evaluated_one(tmp_path):
    run = digits(tmp_path)
    model = run.result()
    x = run.data.held_out.kept.float() / 255
    right = (model(model.normalise(x)).argmax(1) == run.data.held_out.labels).float().mean().item()
    assert right == pytest.approx(run.best.accuracy)
    assert (model.classes, model.size, model.resize) == (run.data.classes, 8, 8)
    assert model.mean == run.data.train.mean_std()[0]
    extract = FeatureExtractor("auto", "relu2_1", weights=tmp_path / "best.safetensors")
    torch.testing.assert_close(extract(x)["relu2_1"], model.features(model.normalise(x)), rtol=1e-4, atol=1e-4)


def test_the_loss_of_a_step_is_the_definitions(tmp_path):
    """The first step of plain SGD, written out."""
    recipe = tiny(
        optimiser="sgd", momentum=0.0, weight_decay=0.0, augment="none", warmup=0.0, schedule="constant",
        learning_rate=0.1, label_smoothing=0.1, batch_norm=False, epochs=1,
    )  # fmt: skip
    run = digits(tmp_path, recipe)
    twin = network.vgg("4,M,8", head="gap", num_classes=10, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), run.model.parameters(), strict=True))
    order = run.order(0)[:256]
    x = run.model.normalise(run.data.train.kept[order].float() / 255)
    loss = nn.functional.cross_entropy(twin(x), run.data.train.labels[order], label_smoothing=0.1)
    loss.backward()
    progress = next(iter(run))
    assert progress.loss == pytest.approx(loss.item(), rel=1e-5)
    for ours, theirs in zip(run.model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


@pytest.mark.parametrize("head", ["gap", "paper"])
@pytest.mark.parametrize("stops", [[1], [3, 6, 8]])
def test_a_run_that_was_left_and_resumed_is_the_same(stops, head, tmp_path):
    recipe = tiny(head=head, hidden=8)
    whole = digits(tmp_path / "whole", recipe)
    whole.result()
    done = 0
    for stop in stops:
        run = digits(tmp_path / "parts", recipe, resume=True, checkpoint_seconds=0)
        for _ in run:
            done += 1
            if done == stop:
                break
        torch.manual_seed(random.randrange(1000))
    last = digits(tmp_path / "parts", recipe, resume=True)
    last.result()
    assert same(tmp_path / "whole", tmp_path / "parts")
    for a, b in zip(whole.history, last.history, strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}


# A server that has imported what a run needs forks each child: imports take longer than these runs.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["vggfeat.training.run", "sklearn.datasets", "torch._dynamo", "kornia.enhance"])


def work(folder, recipe):
    torch.set_num_threads(1)
    digits(folder, TrainingRecipe(**recipe), resume=True, checkpoint_seconds=0).result()


def child(folder, recipe):
    process = CHILDREN.Process(target=work, args=(folder, recipe))
    process.start()
    return process


def finish(folder, recipe):
    process = child(folder, recipe)
    process.join()
    assert process.exitcode == 0


def test_a_checkpoint_holds_nothing_of_the_name_it_was_written_under(tmp_path):
    digits(tmp_path, tiny(epochs=1)).result()
    with zipfile.ZipFile(tmp_path / "checkpoint.pt") as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"archive"}


def written(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_and_compare(tmp_path, kills, recipe, steps, seed):
    """Kill a run `kills` times at random moments of its work, then let it end: it is an uninterrupted run's twin."""
    moments = random.Random(seed)
    finish(tmp_path / "whole", recipe)
    checkpoint = tmp_path / "parts" / "checkpoint.pt"
    killed = 0
    for _ in range(kills):
        process = child(tmp_path / "parts", recipe)
        last, left = written(checkpoint), moments.randint(1, steps // (2 * kills))
        while process.is_alive() and left:
            time.sleep(0.002)
            now = written(checkpoint)
            last, left = now, left - (now != last)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    finish(tmp_path / "parts", recipe)
    assert same(tmp_path / "whole", tmp_path / "parts")
    one, other = ((tmp_path / name / "best.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == other
    assert not list((tmp_path / "parts").glob(".*"))
    return killed


@pytest.mark.slow
def test_a_killed_run_resumes_exactly(tmp_path):
    recipe = {**TINY, "epochs": 12, "batch_size": 128, "augment": "none"}
    assert kill_and_compare(tmp_path, 3, recipe, steps=12 * 12, seed=1) == 3


@pytest.mark.slow
def test_a_run_killed_ten_times_resumes_exactly(tmp_path):
    recipe = {**TINY, "network": "8,8,M,16", "head": "paper", "hidden": 32, "epochs": 60, "batch_size": 64}
    assert kill_and_compare(tmp_path, 10, recipe, steps=60 * 23, seed=int(time.time())) == 10


def test_what_is_resumed_must_be_the_same_run(tmp_path):
    digits(tmp_path, tiny(epochs=1)).result()
    with pytest.raises(InputError, match="holds a run: resume it, or name another folder"):
        digits(tmp_path)
    with pytest.raises(RecipeError, match=r"began with learning rate 0\.01, not 0\.5"):
        digits(tmp_path, tiny(learning_rate=0.5), resume=True)
    assert len(digits(tmp_path, tiny(epochs=2), resume=True).history) == 1
    other = load_data("digits", size=8, seed=9)
    with pytest.raises(InputError, match="are not those that the run in"):
        train(other, tmp_path, tiny(), resume=True, device="cpu")
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be read"):
        digits(tmp_path, resume=True)


def test_tuning_starts_from_weights_and_freezes_blocks(tmp_path):
    first = network.vgg("4,M,8", batch_norm=True, head="gap", num_classes=2, seed=5)
    first.mean, first.std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    network.save(first, tmp_path / "first.safetensors")
    run = digits(tmp_path / "out", tiny(source=str(tmp_path / "first.safetensors"), freeze="block1", epochs=1))
    model = run.result()
    before, after = first.state_dict(), model.state_dict()
    for key, tensor in after.items():
        frozen = key.split(".")[0] == "features" and int(key.split(".")[1]) < 4
        assert (
            torch.equal(before[key], tensor) == frozen if key in before and before[key].shape == tensor.shape else True
        ), key
    assert after["classifier.0.weight"].shape == (10, 8)
    assert (model.mean, model.std) == (first.mean, first.std)


def test_tuning_takes_the_head_of_the_same_classes(tmp_path):
    digits(tmp_path / "one", tiny(epochs=1)).result()
    run = digits(tmp_path / "two", tiny(source=str(tmp_path / "one" / "best.safetensors"), epochs=1))
    state = load_file(tmp_path / "one" / "best.safetensors")
    assert torch.equal(run.model.state_dict()["classifier.0.weight"], state["classifier.0.weight"])
    assert run.evaluate().accuracy == pytest.approx(digits(tmp_path / "one", resume=True).best.accuracy)


def test_early_stop(tmp_path):
    run = digits(tmp_path, tiny(epochs=50, learning_rate=0.0, patience=2))
    run.result()
    assert len(run.history) == 3
    again = digits(tmp_path, tiny(epochs=50, learning_rate=0.0, patience=2), resume=True)
    assert not list(again)


def test_a_loss_that_is_not_finite_is_refused(tmp_path):
    recipe = tiny(
        optimiser="sgd", learning_rate=100.0, batch_norm=False, warmup=0.0, init="paper", epochs=9, batch_size=32
    )
    with pytest.raises(RecipeError, match="the loss is not finite in epoch 1: a learning rate below 100"):
        digits(tmp_path, recipe).result()
    assert not list(tmp_path.iterdir())


def test_a_remainder_of_one_is_left_out():
    assert count_batches(129, 64) == 2
    assert count_batches(130, 64) == 3
    with pytest.raises(InputError, match="1 pictures are too few to train on: 2 are needed"):
        count_batches(1, 64)


def test_nothing_of_torchs_state_is_touched(tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.no_grad():
        digits(tmp_path, tiny(head="paper", hidden=4, epochs=1)).result()
    assert torch.equal(before, torch.get_rng_state())


def test_folders_with_damaged_pictures_train(make_folder, tmp_path):
    folder = make_folder(tmp_path / "pictures", count=16)
    (folder / "down" / "0.png").write_bytes(b"x")
    run = train(folder, tmp_path / "out", tiny(size=16, epochs=8, batch_size=8, augment="none"), device="cpu")
    run.result()
    assert run.best.accuracy == 1.0
    assert list(run.data.skipped) == [str(folder / "down" / "0.png")]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["skipped"]) == list(run.data.skipped)
    again = train(
        folder, tmp_path / "out", tiny(size=16, epochs=9, batch_size=8, augment="none"), resume=True, device="cpu"
    )
    again.result()
    assert len(again.history) == 9


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_and_device(device, precision, tmp_path):
    run = digits(tmp_path, tiny(epochs=4), device=device, precision=precision)
    first, *_, last = [progress.evaluation for progress in run if progress.evaluation]
    assert last.loss < first.loss
    assert {tensor.dtype for tensor in run.model.parameters()} == {torch.float32}
    assert weights.metadata(tmp_path / "best.safetensors")["classes"] == list("0123456789")


@pytest.mark.slow
def test_digits_are_learnt(tmp_path):
    """The default recipe: at least 98 % of what was held out."""
    run = train("digits", tmp_path, device="cpu")
    run.result()
    assert run.best.accuracy >= 0.98
