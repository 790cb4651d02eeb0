"""Checkpoints are whole or not there, and a run goes on from one as if nothing had happened."""

import pytest
import torch

from vggfeat.errors import InputError
from vggfeat.transfer import checkpoint
from vggfeat.transfer.named import recipe
from vggfeat.transfer.run import stylize
from vggfeat.transfer.tiles import Blocks

# Shallow layers: what these tests show does not depend on depth, and a pass of three convolutions is short.
SHALLOW = {"content_layers": {"relu2_1": 1.0}, "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0}}
SMALL = SHALLOW | {"first_size": 32, "steps": 4, "step_decay": 1.0}


def test_comes_back_as_it_was(tmp_path):
    tensors = {"image": torch.rand(1, 3, 4, 5), "scale": torch.tensor(2.0), "view": torch.rand(4, 4).T}
    checkpoint.save(tmp_path / "run.ckpt", {"stage": 2, "name": "é"}, tensors)
    found = checkpoint.load(tmp_path / "run.ckpt")
    assert found.facts == {"stage": 2, "name": "é"}
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


def test_a_failed_write_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "run.ckpt"
    checkpoint.save(path, {}, {"x": torch.zeros(2)})
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {}, {"x": torch.ones(2)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_files_are_refused(data, tmp_path):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match="is not a checkpoint"):
        checkpoint.load(tmp_path / "x")


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match="there is no checkpoint 'nowhere'"):
        checkpoint.load("nowhere")


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, 48, 64, generator=generator), torch.rand(1, 3, 60, 60, generator=generator)


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
@pytest.mark.parametrize("at", [(1, 1), (1, 4), (2, 2), (2, 4)])
def test_a_resumed_run_ends_with_the_same_picture(at, optimiser, pictures, tmp_path):
    small = recipe("default", **SMALL, optimiser=optimiser)
    whole = stylize(*pictures, small, size=64)
    for progress in whole:
        if (progress.stage, progress.step) == at:
            whole.save(tmp_path / "run.ckpt")
    resumed = stylize(*pictures, small, size=64, resume=tmp_path / "run.ckpt")
    assert torch.equal(resumed.result(), whole.image)


@pytest.mark.parametrize(
    ("optimiser", "last"),
    [("lbfgs", "vggfeat.transfer.optimise.LossAndGradient"), ("adam", "vggfeat.transfer.evaluator.Whole.evaluate")],
)
def test_a_step_that_is_broken_off_leaves_no_trace(optimiser, last, pictures, tmp_path, monkeypatch):
    """The checkpoint holds the last complete step, although the next one has changed the optimiser already."""
    small = recipe("default", **SMALL, optimiser=optimiser)
    whole = stylize(*pictures, small, size=64).result()
    run = stylize(*pictures, small, size=64)
    for progress in run:
        if (progress.stage, progress.step) == (1, 3):
            break

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(last, fail)
        with pytest.raises(KeyboardInterrupt):
            next(iter(run))
    run.save(tmp_path / "run.ckpt")
    assert torch.equal(stylize(*pictures, small, size=64, resume=tmp_path / "run.ckpt").result(), whole)


def test_a_resumed_stage_ends_at_the_same_plateau(pictures, tmp_path):
    small = recipe("default", **SHALLOW, first_size=32, steps=30, until_plateau=0.5, margin=0)
    whole = stylize(*pictures, small, size=32)
    for progress in whole:
        if progress.step in (8, 11):
            whole.save(tmp_path / f"{progress.step}.ckpt")
    whole.save(tmp_path / "end.ckpt")
    assert 11 < progress.taken < 30
    for name in ("8", "11", "end"):
        steps = list(stylize(*pictures, small, size=32, resume=tmp_path / f"{name}.ckpt"))
        assert steps[-1].taken == progress.taken
        assert torch.equal(steps[-1].image, progress.image)
    assert len(steps) == 1  # the end is shown again


def test_a_run_in_blocks_goes_on_in_them(pictures, tmp_path, monkeypatch):
    small = recipe("default", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr("vggfeat.transfer.memory.choose", lambda *_, **__: Blocks(32, 2))
        whole = stylize(*pictures, small, size=64).result()
        run = stylize(*pictures, small, size=64)
    for _, _ in zip(range(3), run, strict=False):
        pass
    run.save(tmp_path / "run.ckpt")
    again = stylize(*pictures, small, size=64, resume=tmp_path / "run.ckpt")
    assert again.blocks == run.blocks == (Blocks(32, 2),) * len(run.stages)
    assert torch.equal(again.result(), whole)


def test_labels_of_a_recipe_do_not_matter(pictures, tmp_path):
    run = stylize(*pictures, recipe("default", **SMALL), size=64)
    next(iter(run))
    run.save(tmp_path / "run.ckpt")
    renamed = recipe("default", **SMALL, name="mine", about="another line")
    assert torch.equal(stylize(*pictures, renamed, size=64, resume=tmp_path / "run.ckpt").result(), run.result())


def test_resuming_another_run_is_refused(pictures, tmp_path):
    run = stylize(*pictures, recipe("default", **SMALL), size=64)
    next(iter(run))
    run.save(tmp_path / "run.ckpt")
    with pytest.raises(InputError, match=r"differs in recipe \(seed\)"):
        stylize(*pictures, recipe("default", **SMALL | {"seed": 5}), size=64, resume=tmp_path / "run.ckpt")
    with pytest.raises(InputError, match="differs in inputs"):
        stylize(pictures[0], pictures[0], recipe("default", **SMALL), size=64, resume=tmp_path / "run.ckpt")


def test_more_steps_continue_a_run_that_had_ended(pictures, tmp_path):
    """With one stage, the picture is that of a run that was asked for all steps at once."""
    one = SMALL | {"first_size": 64}
    short, long = (recipe("default", **one | {"steps": steps}) for steps in (3, 7))
    ended = stylize(*pictures, short, size=64)
    ended.result()
    ended.save(tmp_path / "run.ckpt")
    resumed = stylize(*pictures, long, size=64, resume=tmp_path / "run.ckpt")
    assert [progress.step for progress in resumed] == [4, 5, 6, 7]
    assert torch.equal(resumed.image, stylize(*pictures, long, size=64).result())
    resumed.save(tmp_path / "run.ckpt")
    with pytest.raises(InputError, match="has taken 7 steps at 64x48 pixels, and the recipe has only 3: more steps"):
        stylize(*pictures, short, size=64, resume=tmp_path / "run.ckpt")


def test_fewer_steps_end_the_stage_of_an_interrupted_run(pictures, tmp_path):
    run = stylize(*pictures, recipe("default", **SMALL), size=64)
    for progress in run:
        if (progress.stage, progress.step) == (1, 3):
            break
    run.save(tmp_path / "run.ckpt")
    fewer = stylize(*pictures, recipe("default", **SMALL | {"steps": 2}), size=64, resume=tmp_path / "run.ckpt")
    assert [(progress.stage, progress.step) for progress in fewer] == [(2, 1), (2, 2)]
