import pytest
import torch

from vggfeat import InputError, RecipeError, StyleRecipe, train_styles
from vggfeat.transfer.styles.run import checkpoint_path, preview_path

SMALL = {
    "content_layers": {"relu1_2": 1},
    "style_layers": {"relu1_1": 1, "relu2_1": 1},
    "crop": 32,
    "style_size": 40,
    "photographs": 1,
    "evaluate_every": 3,
    "full": 4,
    "half": 6,
    "quarter": 8,
    "blocks": 1,
}


def recipe(**changes):
    return StyleRecipe(**{**SMALL, "steps": 6, **changes})


def pictures():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 12, 12, generator=generator)
    return dict(zip(("waves", "dots"), torch.nn.functional.interpolate(coarse, (48, 60)).split(1), strict=True))


def test_training_lowers_the_objective(tmp_path):
    chosen = recipe(steps=20, evaluate_every=5, content_weight=0.0, learning_rate=0.01)
    run = train_styles(pictures(), tmp_path / "my.safetensors", chosen, device="cpu")
    steps = list(run)
    assert [progress.step for progress in steps] == list(range(1, 21))
    assert [step for step, _ in run.history] == [5, 10, 15, 20]
    assert steps[4].objective == run.history[0][1]
    assert steps[0].objective is None
    assert run.history[-1][1] < 0.9 * run.history[0][1]
    assert run.result().recipe == chosen.as_dict()
    assert preview_path(run.output).exists()
    assert not checkpoint_path(run.output).exists()


@pytest.mark.parametrize("killed", [1, 3, 5])
def test_a_killed_run_continues_to_the_same_bytes(tmp_path, killed):
    whole = train_styles(pictures(), tmp_path / "whole.safetensors", recipe(), device="cpu")
    whole.result()
    path = tmp_path / "parts.safetensors"
    run = train_styles(pictures(), path, recipe(), device="cpu", checkpoint_seconds=0)
    for progress in run:
        if progress.step == killed:
            break
    run = train_styles(pictures(), path, recipe(), device="cpu", resume=True)
    assert next(iter(run)).step == killed + 1
    run.result()
    assert path.read_bytes() == whole.output.read_bytes()
    assert run.history == whole.history


def test_another_seed_gives_another_network(tmp_path):
    files = []
    for seed in (0, 0, 1):
        train_styles(pictures(), tmp_path / "a.safetensors", recipe(seed=seed, steps=1), device="cpu").result()
        files.append((tmp_path / "a.safetensors").read_bytes().partition(b"}}")[2])
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_run_is_resumed_with_its_own_options_and_inputs(tmp_path):
    path = tmp_path / "my.safetensors"
    next(iter(train_styles(pictures(), path, recipe(), device="cpu", checkpoint_seconds=0)))
    with pytest.raises(InputError, match="holds a run: resume it"):
        train_styles(pictures(), path, recipe(), device="cpu")
    with pytest.raises(RecipeError, match=r"began with learning rate 0.002, not 0.1"):
        train_styles(pictures(), path, recipe(learning_rate=0.1), device="cpu", resume=True)
    other = {**pictures(), "dots": torch.rand(1, 3, 48, 60)}
    with pytest.raises(InputError, match="began with other styles or photographs"):
        train_styles(other, path, recipe(), device="cpu", resume=True)
    assert len(list(train_styles(pictures(), path, recipe(steps=2), device="cpu", resume=True))) == 1


def test_a_run_is_not_resumed_with_fewer_steps_than_it_has_taken(tmp_path):
    path = tmp_path / "my.safetensors"
    steps = iter(train_styles(pictures(), path, recipe(), device="cpu", checkpoint_seconds=0))
    for _ in range(3):
        next(steps)
    with pytest.raises(RecipeError, match="has taken 3 steps: give at least as many, not 2"):
        train_styles(pictures(), path, recipe(steps=2), device="cpu", resume=True)
    assert checkpoint_path(path).exists()


def test_a_resumed_run_may_change_its_losses(tmp_path):
    path = tmp_path / "my.safetensors"
    steps = iter(train_styles(pictures(), path, recipe(evaluate_every=1), device="cpu"))
    first = next(steps).objective
    heavier = recipe(evaluate_every=1, style_weight=200.0, steps=2)
    run = train_styles(pictures(), path, heavier, device="cpu", resume=True)
    (progress,) = run
    assert progress.objective > 10 * first
    assert run.result().recipe == heavier.as_dict()  # the best so far does not count: it is of other losses


def test_patience_stops_early(tmp_path):
    settings = recipe(steps=100, evaluate_every=1, patience=2, learning_rate=1.0)
    run = train_styles(pictures(), tmp_path / "my.safetensors", settings, device="cpu")
    assert len(list(run)) < 100
    values = [objective for _, objective in run.history]
    assert min(values[-2:]) >= min(values[:-2])


def test_adding_a_style_leaves_the_others_as_they_are(tmp_path):
    first = train_styles(pictures(), tmp_path / "two.safetensors", recipe(), device="cpu").result()
    new = {"stripes": torch.rand(1, 3, 48, 48)}
    run = train_styles(new, tmp_path / "three.safetensors", recipe(), add_to=first.path, device="cpu")
    three = run.result()
    assert three.names == ("waves", "dots", "stripes")
    before, after = first.network.state_dict(), three.network.state_dict()
    for name, x in before.items():
        if name.endswith(("scale", "shift", "gate")):
            assert torch.equal(after[name][:2], x)
            assert not torch.equal(after[name][2], x.mean(0))
        else:
            assert torch.equal(after[name], x)


def test_what_cannot_be_added_is_refused(tmp_path):
    path = tmp_path / "two.safetensors"
    train_styles(pictures(), path, recipe(steps=1), device="cpu").result()
    for new, changes, message in (
        ({"dots": torch.rand(1, 3, 48, 48)}, {}, "has a style dots already"),
        ({"stripes": torch.rand(1, 3, 48, 48)}, {"full": 5}, "has the widths"),
        ({"a:b": torch.rand(1, 3, 48, 48)}, {}, "cannot name a style"),
        ({}, {}, "no style to train"),
    ):
        with pytest.raises((InputError, RecipeError), match=message):
            train_styles(new, tmp_path / "three.safetensors", recipe(**changes), add_to=path, device="cpu")


def test_the_styles_of_a_file_differ(tmp_path):
    """Each style's scales and shifts are trained by its own picture."""
    run = train_styles(pictures(), tmp_path / "my.safetensors", recipe(steps=4, styles=1), device="cpu")
    before = {name: x.clone() for name, x in run.network.state_dict().items()}
    next(iter(run))
    after = run.network.state_dict()
    moved = {row for row in range(2) if not torch.equal(after["up1.shift"][row], before["up1.shift"][row])}
    assert len(moved) == 1
    list(run)
    assert all(not torch.equal(run.network.state_dict()["up1.shift"][row], before["up1.shift"][row]) for row in (0, 1))


def test_recipes_are_checked():
    for changes, message in (
        ({"steps": 0}, "steps is 0"),
        ({"crop": 8}, "crop is 8"),
        ({"learning_rate": -1.0}, "learning rate is -1.0"),
        ({"style_layers": {}}, "there are no style layers"),
        ({"style_layers": {"relu1_1": -1}}, "weight of relu1 1"),
        ({"content_layers": {"relu9_1": 1}}, "relu9_1"),
        ({"full": 0}, "width at full size"),
    ):
        with pytest.raises((RecipeError, ValueError), match=message):
            recipe(**changes)
