"""`ComparingClips` agrees with the classes of `vggfeat.pictures.video`."""

import pytest
import scenes
import torch

from vggfeat import WarpedLPIPS, WarpingError, write_picture
from vggfeat.errors import InputError
from vggfeat.pairs.clips import ComparingClips


@pytest.fixture
def folders(tmp_path):
    """A clip of known motion, and one that flickers along it."""
    original = scenes.clip(4)
    painted = (original + torch.tensor([0, 0.1, 0, 0.1]).reshape(4, 1, 1, 1)).clamp(0, 1)
    for name, clip in (("painted", painted), ("original", original)):
        (tmp_path / name).mkdir()
        for number, frame in enumerate(clip, 1):
            write_picture(tmp_path / name / f"{number}.png", frame[None], bits=8)
    return tmp_path / "painted", tmp_path / "original", painted, original


def test_values_are_those_of_the_classes(folders):
    *paths, painted, original = folders
    painted, original = ((clip * 255).round() / 255 for clip in (painted, original))
    run = ComparingClips(*paths, ["warping-error", "lpips-alex"], flow=scenes.flow, device="cpu")
    assert len(run) == 3
    result = run.result()
    assert result.complete
    assert [row.pair.name for row in result.rows] == ["frame 2", "frame 3", "frame 4"]
    for back, suffix in ((1, ""), (None, "-long")):
        error = WarpingError(flow=scenes.flow, back=back)(painted, original)
        lpips = WarpedLPIPS("alex", flow=scenes.flow, back=back)(painted, original)
        assert result.mean[f"warping-error{suffix}"] == pytest.approx(float(error), rel=1e-4)
        assert result.mean[f"lpips-alex{suffix}"] == pytest.approx(float(lpips), rel=1e-4)
    assert list(result.mean) == ["warping-error", "warping-error-long", "lpips-alex", "lpips-alex-long"]
    assert all("flow" in line and "vggfeat" in line for line in result.signatures.values())


def test_an_interrupted_comparison_is_not_complete(folders):
    run = ComparingClips(*folders[:2], "warping-error", flow=scenes.flow)
    next(iter(run))
    assert run.done == 1
    iter(run).close()  # as an exception in the loop would
    result = run.result()
    assert not result.complete
    assert len(result.rows) == 1


def test_a_value_that_is_not_finite_is_no_hidden_frame(folders, monkeypatch):
    monkeypatch.setattr("vggfeat.losses.steadiness.warping_error", lambda _pair: torch.tensor(torch.nan))
    with pytest.raises(InputError, match="warping-error of frame 2 is nan: try precision='float32'"):
        ComparingClips(*folders[:2], "warping-error", flow=scenes.flow).result()


def test_frames_that_share_no_pixel_are_left_out(folders):
    def away(first, _second):
        return torch.full((1, 2, *first.picture.shape[2:]), 1000.0)

    result = ComparingClips(*folders[:2], "warping-error", flow=away).result()
    assert result.infinite == {"warping-error": 3, "warping-error-long": 3}
    assert result.signatures["warping-error"].endswith("away")  # the same in each process


def test_unknown_metrics_are_refused(folders):
    with pytest.raises(InputError, match="unknown metric of clips 'warping': did you mean warping-error"):
        ComparingClips(*folders[:2], "warping")
