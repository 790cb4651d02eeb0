"""The preprocessing that weights were trained with: given, or recognised by the hash of a file."""

import json

import pytest
import torch

from vggfeat import Classifier, FeatureExtractor, PerceptualLoss, dump, match, recipe, vgg, view, write_picture
from vggfeat.dumps.errors import StoreError
from vggfeat.dumps.verify import verify
from vggfeat.errors import InputError, RecipeError
from vggfeat.networks import network, table, weights
from vggfeat.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, normalisation
from vggfeat.training.recipe import TrainingRecipe

PLAN = "8,M,16"
BYTES = (123.68, 116.779, 103.939), (1, 1, 1)
CAFFE = {"mean": BYTES[0], "std": BYTES[1], "input_order": "bgr"}
KNOWN = IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture(scope="module")
def model():
    return vgg(PLAN, num_classes=3, hidden=4, seed=0).eval()


@pytest.fixture
def file(model, tmp_path):
    """A whole network that reads BGR in 0-255, as converted from Caffe."""
    torch.save(model.state_dict(), path := tmp_path / "caffe.pth")
    return path


def by_hand(images):
    """What a network converted from Caffe reads."""
    return images.flip(1) * 255 - torch.tensor(BYTES[0]).flip(0).reshape(1, 3, 1, 1)


def close(found, expected):
    """Equal but for the rounding of 0-255 to 0-1."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_the_features_are_those_of_the_definition(model, file, images):
    expected = model.features(by_hand(images))
    found = FeatureExtractor(PLAN, "relu2_1", weights=file, **CAFFE)(images)["relu2_1"]
    close(found, expected)
    state = model.state_dict()
    criterion = PerceptualLoss(["relu2_1"], network=PLAN, weights=state, **CAFFE)
    close(criterion.trunk(images)["relu2_1"], expected)
    inspected = view.inspect(images[:1], "relu2_1", PLAN, weights=file, device="cpu", **CAFFE)
    close(inspected.features["relu2_1"], expected[:1])
    assert (
        match(images[:1], images[:1], "relu2_1", PLAN, weights=file, device="cpu", **CAFFE).metadata["std"][0] < 0.004
    )


def test_classification(model, file, images):
    classify = Classifier(PLAN, file, device="cpu", **CAFFE)
    classify.model.size = classify.model.resize = min(images.shape[2:])
    square = images[:, :, : classify.model.size, : classify.model.size]
    close(classify.probabilities(square), model(by_hand(square)).softmax(1).detach())


@pytest.mark.parametrize(
    ("mean", "std", "reason"),
    [
        (BYTES[0], None, "mean is 123.68,116.779,103.939, which is for images in 0-255, and there is no std: give std"),
        (BYTES[0], (0.2, 0.2, 0.2), "and std is 0.2,0.2,0.2: give std in the same range"),
        (None, (58, 57, 57), "std is 58,57,57: above 1 it is for images in 0-255"),
        (None, (0.2, 0, 0.2), "std is 0.2,0,0.2: it must be finite and above 0"),
        ((float("nan"), 0, 0), None, "mean is nan,0,0: it must be finite"),
        ((0.5, 0.5), None, "mean has 2 values: it must have three"),
        ("grey", None, "mean is 'grey': it must be three numbers"),
    ],
)
def test_values_that_no_weights_can_have(mean, std, reason):
    with pytest.raises(InputError, match=reason):
        normalisation(mean, std, KNOWN)
    with pytest.raises(InputError, match=reason):
        FeatureExtractor(PLAN, "relu1_1", weights=None, mean=mean, std=std)


def test_values_in_the_unit_range_are_kept():
    assert normalisation((0, 0, 0), (1, 1, 1), KNOWN) == ((0, 0, 0), (1, 1, 1))
    assert normalisation(None, (0.5, 0.5, 0.5), KNOWN) == (IMAGENET_MEAN, (0.5, 0.5, 0.5))


def test_bgr_without_its_mean_and_std_is_warned_of(file):
    with pytest.warns(UserWarning, match="mean and std are not both given, so ImageNet's are used"):
        weights.load(PLAN, file, input_order="bgr")


@pytest.mark.parametrize("known", ["imagenet1k_v1", None])
def test_named_weights_read_rgb(known):
    with pytest.raises(InputError, match=r"read RGB: input_order='bgr' is only for files"):
        weights.load("alexnet", known, input_order="bgr")
    with pytest.raises(InputError, match="unknown input_order 'brg': did you mean rgb or bgr"):
        weights.load("alexnet", known, input_order="brg")


def test_a_file_of_the_table_is_recognised_by_its_hash_whatever_its_name(tmp_path, monkeypatch):
    state = vgg("vgg16", head=None, seed=0).features.state_dict(prefix="features.")
    torch.save(state, path := tmp_path / "renamed.pth")
    plain, entry = weights.load("vgg16", path)
    assert entry.mean == IMAGENET_MEAN
    for entry in (*table.CONVERTED, weights.find_entry("vgg16", "oxford"), weights.find_entry("vgg16")):
        if entry.network != "vgg16":
            continue
        digits = "397923af" if entry.bundled else entry.file.removesuffix(".pth").rpartition("-")[2]
        monkeypatch.setattr("vggfeat.networks.weights.sha256", lambda _path, digits=digits: digits + 56 * "0")
        found, seen = weights.load("vgg16", path)
        assert seen == entry
        first = plain["features.0.weight"]
        assert torch.equal(found["features.0.weight"], first.flip(1) if entry.name == "caffe" else first)
        asked, _ = weights.load("vgg16", path, input_order="rgb")
        assert torch.equal(asked["features.0.weight"], first)


def test_the_name_of_a_file_decides_nothing(tmp_path):
    state = vgg("vgg16", head=None, seed=0).features.state_dict(prefix="features.")
    torch.save(state, path := tmp_path / weights.find_entry("vgg16", "oxford").file)
    assert weights.load("vgg16", path)[1].mean == IMAGENET_MEAN


def test_a_dump_records_the_preprocessing_and_continues_with_it(file, model, tmp_path):
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    write_picture(tmp_path / "a.png", picture)
    options = {"layers": "relu2_1", "network": PLAN, "weights": file, "resize": None, "workers": 0, "device": "cpu"}
    found = dump(tmp_path / "a.png", tmp_path / "out", **options, **CAFFE)
    close(torch.tensor(found["relu2_1"][0]), model.features(by_hand(picture))[0].detach())
    about = json.loads((tmp_path / "out" / "run.json").read_text())["fingerprint"]["weights"]
    assert about["input_order"] == "bgr"
    assert about["mean"] == pytest.approx([value / 255 for value in BYTES[0]])
    assert verify(tmp_path / "out", device="cpu") == []
    dump(tmp_path / "a.png", tmp_path / "out", **options, **CAFFE)
    with pytest.raises(StoreError, match=r"was begun with weights.mean"):
        dump(tmp_path / "a.png", tmp_path / "out", **options, **CAFFE | {"mean": (100, 100, 100)})


def test_a_dump_of_an_earlier_version_continues(file, tmp_path):
    write_picture(tmp_path / "a.png", torch.rand(1, 3, 16, 16))
    options = {"layers": "relu2_1", "network": PLAN, "weights": file, "resize": None, "workers": 0, "device": "cpu"}
    dump(tmp_path / "a.png", tmp_path / "out", **options)
    path = tmp_path / "out" / "run.json"
    run = json.loads(path.read_text())
    for name in ("mean", "std", "input_order"):
        del run["fingerprint"]["weights"][name]
    path.write_text(json.dumps(run))
    assert len(dump(tmp_path / "a.png", tmp_path / "out", **options)) == 1
    assert verify(tmp_path / "out", device="cpu") == []


def test_recipes_name_it(file):
    chosen = recipe("default", network=PLAN, weights=str(file), content_layers={}, style_layers={"relu1_1": 1}, **CAFFE)
    assert chosen.preprocessing == CAFFE
    assert recipe("default").preprocessing == {"mean": None, "std": None, "input_order": None}
    with pytest.raises(RecipeError, match="unknown input_order 'brg'"):
        recipe("default", input_order="brg")
    with pytest.raises(RecipeError, match="there is no std"):
        recipe("default", mean=BYTES[0])
    with pytest.raises(RecipeError, match="are those of weights to start from, and there are none"):
        TrainingRecipe(**CAFFE)
    assert TrainingRecipe(**CAFFE, source="own.pth").as_dict()["mean"] == BYTES[0]


def test_the_network_of_a_file_reads_rgb(file, model, images):
    loaded = network.load(file, PLAN, **CAFFE)
    close(loaded(loaded.normalise(images)), model(by_hand(images)))
