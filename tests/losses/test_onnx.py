"""ONNX files hold what their module computes; onnxruntime is the oracle."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vggfeat import (
    ADISTS,
    DISTS,
    DMM,
    LPIPS,
    STLPIPS,
    ContentLoss,
    Criterion,
    FeatureExtractor,
    PerceptualLoss,
    WeightedSum,
    export_onnx,
    vgg,
)
from vggfeat.errors import InputError, LayerError, VggfeatError
from vggfeat.losses import onnx as exporting
from vggfeat.losses.metrics import available
from vggfeat.losses.onnx import named

SIZES = [(1, 32, 32), (2, 45, 72), (3, 96, 63)]


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


def small(**options):
    return FeatureExtractor("8,M,8,8,M,16", ["conv1_1", "relu2_1", "pool2", "relu3_1"], weights=None, **options)


def check_file(module, path, inputs, outputs, sizes=SIZES):
    """The file equals the module to 1e-4 of the largest value on images of these sizes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == list(inputs)
    assert [x.name for x in session.get_outputs()] == list(outputs)
    for count, height, width in sizes:
        images = [noise(count, 3, height, width + number)[..., :width] for number in range(len(inputs))]
        came = session.run(None, dict(zip(inputs, (x.numpy() for x in images), strict=True)))
        with torch.no_grad():
            found = module(*images)
        expected = list(found.values()) if isinstance(found, dict) else [found]
        for x, y in zip(came, expected, strict=True):
            assert x.shape == tuple(y.shape)
            np.testing.assert_allclose(x, y.numpy(), rtol=0, atol=1e-4 * float(y.abs().max()))


def test_an_extractors_outputs_are_named_after_its_layers(tmp_path):
    extract = small()
    file = export_onnx(extract, tmp_path / "small.onnx")
    assert file.outputs == ("conv1_1", "relu2_1", "pool2", "relu3_1")
    assert file.inputs == ("images",)
    assert [shape[0] for shape in file.differences] == [1, 2, 3]
    assert max(file.differences.values()) < 1e-5
    least = extract.minimum_size
    check_file(extract, file.path, file.inputs, file.outputs, [*SIZES, (1, least, least + 1)])
    written = onnx.load(file.path)
    assert [(x.domain, x.version) for x in written.opset_import] == [("", 18)]
    shape = written.graph.input[0].type.tensor_type.shape
    assert [axis.dim_param or axis.dim_value for axis in shape.dim] == ["batch", 3, "height", "width"]
    [about] = [x.value for x in written.metadata_props if x.key == "vggfeat"]
    assert about == file.about
    assert "input_range=unit" in about


@pytest.mark.slow
def test_terms_in_a_process_without_vggfeat_and_torch(tmp_path):
    deep, pixel = (ContentLoss([name], reduction="none") for name in ("relu2_1", "image"))
    criterion = Criterion(small(input_range="byte"), WeightedSum(deep=(2.0, deep), pixel=(1.0, pixel)))
    file = export_onnx(criterion, tmp_path / "terms.onnx", check=False)
    assert file.differences == {}
    assert file.outputs == ("value", "deep", "pixel")
    a, b = 255 * noise(2, 3, 40, 48), 255 * noise(2, 3, 40, 49)[..., :48]
    np.savez(tmp_path / "pair.npz", prediction=a.numpy(), target=b.numpy())
    code = (
        "import sys, numpy, onnxruntime; pair = dict(numpy.load('pair.npz'));"
        "print(numpy.array(onnxruntime.InferenceSession('terms.onnx').run(None, pair)).tolist());"
        "sys.exit(any(name in sys.modules for name in ('torch', 'vggfeat')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    value, terms = criterion(a, b)
    came = torch.tensor(json.loads(done.stdout))
    torch.testing.assert_close(came, torch.stack([value, *terms.values()]), rtol=1e-4, atol=0)


@pytest.mark.slow
def test_a_spatial_map_and_a_scalar(tmp_path):
    for criterion in (LPIPS("alex", spatial=True), LPIPS("alex", exact=True)):
        file = export_onnx(criterion, tmp_path / "lpips.onnx")
        check_file(criterion, file.path, file.inputs, file.outputs, [(2, 37, 80)])


@pytest.mark.slow
def test_batch_normalisation_pooling_and_ones_own_model(tmp_path):
    model = vgg("8,M,16", batch_norm=True, head="gap", num_classes=2, seed=0).eval()
    modules = (FeatureExtractor.of(model, ["bn2_1", "relu2_1"]), small(pooling="l2"), small(pooling="avg"))
    for module in modules:
        file = export_onnx(module, tmp_path / "model.onnx")
        check_file(module, file.path, file.inputs, file.outputs, [(3, 33, 50)])


@pytest.mark.slow
def test_the_classifiers_layers(tmp_path):
    module = FeatureExtractor("4,M,4,M,4,M,4,M,4", ["relu5_1", "avgpool", "fc6"], weights=None)
    file = export_onnx(module, tmp_path / "model.onnx")
    check_file(module, file.path, file.inputs, file.outputs, [(1, 48, 33), (2, 224, 224)])


@pytest.mark.slow
def test_other_opsets_and_grey_images(tmp_path):
    lpips = LPIPS("alex", channels="repeat", reduction="none")
    file = export_onnx(lpips, tmp_path / "grey.onnx", opset=20)
    assert onnx.load(file.path).opset_import[0].version == 20
    a, b = noise(2, 1, 40, 48), noise(2, 1, 48, 40).mT
    [came] = onnxruntime.InferenceSession(file.path).run(None, {"prediction": a.numpy(), "target": b.numpy()})
    assert came == pytest.approx(lpips(a, b).numpy(), abs=1e-4)


def test_what_cannot_be_exported(tmp_path):
    path = tmp_path / "x.onnx"
    for module, message in (
        (LPIPS("alex", chunk=2), "chunk=2 cannot be exported"),
        (LPIPS("alex", small="enlarge"), "small='enlarge' cannot"),
        (LPIPS("alex", channels="slices"), "channels='slices' cannot"),
        (DISTS(resize=256), "resize=256 cannot"),
        (small(precision="bfloat16"), "the precision is bfloat16: only float32"),
        (torch.nn.ReLU(), "a ReLU cannot be exported"),
    ):
        with pytest.raises(InputError, match=message):
            export_onnx(module, path)
    with pytest.raises(InputError, match="opset is 9: it must be a whole number between 18 and 23"):
        export_onnx(small(), path, opset=9)
    with pytest.raises(InputError, match="is a folder: name a file"):
        export_onnx(small(), tmp_path)
    with pytest.raises(VggfeatError, match=r"cannot write .*: there is no folder"):
        export_onnx(small(), tmp_path / "missing" / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(VggfeatError, match=r"1x3x32x32 the ONNX file differs by .* nothing is written"):
        export_onnx(small(), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(VggfeatError, match=r'needs onnxruntime: pip install "vggfeat\[onnx\]"'):
        export_onnx(small(), tmp_path / "x.onnx")


def test_names():
    assert named("lpips-squeeze", weights=None).loss.net == "squeeze"
    assert named("perceptual", layers=["relu1_1"]).trunk.layers == ("relu1_1",)
    assert named("vgg11", layers=["relu1_1"], weights=None, input_range="byte").input_range == "byte"
    for what, message in (("lpips", "did you mean lpips-"), ("vgg16", "name the layers of vgg16")):
        with pytest.raises(InputError, match=message):
            named(what)
    with pytest.raises(InputError, match="dists has its own"):
        named("dists", layers=["relu1_1"])
    with pytest.raises(LayerError, match="unknown network 'vgg12'"):
        named("vgg12")
    preprocessing = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    for what in ("vgg11", "perceptual"):
        module = named(what, layers=["relu1_1"], weights=None if what == "vgg11" else "default", **preprocessing)
        assert getattr(module, "trunk", module).weights_entry.mean == (0, 0, 0)
    with pytest.raises(InputError, match="mean, std is for a network or 'perceptual': dists has its own"):
        named("dists", **preprocessing)


def test_every_metric_of_networks_has_a_criterion():
    for what, metric in available().items():
        if metric.networks and what != "lpips-squeeze":  # whose network is downloaded
            assert type(named(what)).__name__.lower() in metric.code.lower().replace("-", "") or what == "perceptual"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (DMM, "DMM cannot be exported: ONNX has no singular value decomposition"),
        (ADISTS, "A-DISTS cannot be exported: layers smaller than its window are compared differently"),
    ],
)
def test_metrics_that_no_graph_can_hold_are_refused(make, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_onnx(make(weights=None), tmp_path / "x.onnx")


@pytest.mark.parametrize("change", [lambda x: x * torch.nan, lambda x: x[..., :1]])
def test_a_wrong_last_output_is_found(change, tmp_path, monkeypatch):
    """Comparing floats by `max` would lose a NaN that does not come first, and shapes would broadcast."""

    class Wrong(onnxruntime.InferenceSession):
        def run(self, *arguments):
            *first, last = super().run(*arguments)
            return [*first, change(torch.from_numpy(last)).numpy()]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    extract = FeatureExtractor("vgg11", ["relu1_1", "pool1"], weights=None)
    with pytest.raises(VggfeatError, match=r"differs by (nan|inf)"):
        export_onnx(extract, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: LPIPS("vgg", reduction="none"),
        lambda: STLPIPS(reduction="none"),
        lambda: LPIPS("squeeze", weights=None),
        lambda: DISTS(reduction="none"),
        lambda: PerceptualLoss(["relu3_3"], ["relu1_2", "relu2_2"], pixel=1.0, tv=1.0, lpips=1.0, reduction="none"),
    ],
)
def test_whole_metrics(make, tmp_path):
    criterion = make()
    file = export_onnx(criterion, tmp_path / "metric.onnx")
    check_file(criterion, file.path, ("prediction", "target"), ("value",), [(1, 64, 64), (2, 45, 80), (3, 96, 63)])
