"""Files of Keras and MatConvNet, written here in their layouts, are read with their preprocessing."""

import re
import sys
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from vggfeat import Classifier, FeatureExtractor, vgg
from vggfeat.errors import WeightsError
from vggfeat.networks import arch, network, weights

PLAN = "8,8,M,16,M"
COLOUR = torch.tensor([123.68, 116.779, 103.939]).reshape(3, 1, 1)


@pytest.fixture(scope="module")
def model():
    """A small whole network, with biases that are not zero."""
    made = vgg(PLAN, num_classes=3, hidden=4, seed=0).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    return made


def convolutions(made):
    """(name, kernel (h, w, in, out), bias) of each convolution."""
    for layer in arch.layers(made.network):
        if layer.kind == "conv":
            module = made.features[layer.index]
            yield layer.name, module.weight.detach().permute(2, 3, 1, 0).numpy(), module.bias.detach().numpy()


def dense(made):
    """(name, kernel (in, out) that reads a flattened (h, w, C), bias) of each linear layer."""
    linear = [module for module in made.classifier if isinstance(module, torch.nn.Linear)]
    for name, module in zip(["fc1", "fc2", "predictions"], linear, strict=True):
        weight = module.weight.detach()
        if name == "fc1":
            weight = weight.unflatten(1, (-1, 7, 7)).permute(0, 2, 3, 1).flatten(1)
        yield name, weight.T.numpy(), module.bias.detach().numpy()


def write_keras(path, made, *, style="kernel:0", top=True):
    """`style`: the names in weights files of Keras 1 and 2, in a full or a nested model, or in the files of Keras 3."""
    layers = [(re.sub(r"conv(\d+)_(\d+)", r"block\1_conv\2", name), *rest) for name, *rest in convolutions(made)]
    layers += list(dense(made)) if top else []
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if style in ("full", "nested") else file
        if style == "full":
            file.create_group("optimizer_weights/sgd").create_dataset("momentum:0", data=np.zeros((3, 3, 3, 8)))
        if style == "keras 3":
            counts = {2: 0, 4: 0}
            for _, kernel, bias in layers:
                kind, number = {2: "dense", 4: "conv2d"}[kernel.ndim], counts[kernel.ndim]
                counts[kernel.ndim] += 1
                group = file.create_group(f"layers/functional/layers/{kind}{f'_{number}' if number else ''}/vars")
                group["0"], group["1"] = kernel, bias
            file.create_group("layers/dropout/seed_generator/vars")["0"] = np.zeros(2, np.uint32)
            return
        root.attrs["layer_names"] = np.array([b"input_1", *([b"vgg"] if style == "nested" else []),
                                              *(name.encode() for name, *_ in layers)])  # fmt: skip
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for name, kernel, bias in layers:
            names = {"W": (f"{name}_W_1:0", f"{name}_b_1:0")}.get(style, (f"{name}/kernel:0", f"{name}/bias:0"))
            inside = "vgg" if style == "nested" and kernel.ndim == 4 else name
            group = root.require_group(inside)
            group.attrs["weight_names"] = np.array(
                [*group.attrs.get("weight_names", []), *(text.encode() for text in names)]
            )
            group[names[0]], group[names[1]] = kernel, bias


def write_mat(path, made, *, style="weights", average=None, top=True, version="5"):
    """`style`: `weights` in a cell, or `filters` and `biases` as in older files, or all inside a struct `net`."""
    filters = {name: (kernel, bias) for name, kernel, bias in convolutions(made)}
    layers = []
    for layer in arch.layers(made.network):
        if layer.kind == "conv":
            layers.append(conv(layer.name, *filters[layer.name], style))
        elif layer.kind == "relu":
            layers.append({"type": "relu", "name": layer.name})
        else:
            layers.append({"type": "pool", "name": layer.name, "method": "max", "pool": [2, 2], "stride": 2})
    linear = [module for module in made.classifier if isinstance(module, torch.nn.Linear)]
    for name, module in zip(["fc6", "fc7", "fc8"], linear if top else [], strict=top):
        side = 7 if name == "fc6" else 1
        kernel = module.weight.detach().unflatten(1, (-1, side, side)).permute(2, 3, 1, 0).numpy()
        layers += [conv(name, kernel, module.bias.detach().numpy(), style), {"type": "relu", "name": f"relu{name[2]}"}]
    cell = np.empty((1, len(layers)), object)
    cell[0, :] = layers
    normalization = {"imageSize": [224.0, 224, 3], "averageImage": COLOUR.numpy().reshape(1, 1, 3)}
    if average is not None:
        normalization["averageImage"] = average
    names = np.array(["cat", "dog", "fox"], object)
    content = {"layers": cell, "meta": {"normalization": normalization, "classes": {"description": names}}}
    if style == "filters":
        content = {"layers": cell, "normalization": normalization}
    scipy.io.savemat(path, {"net": content} if style == "net" else content, format=version, do_compression=True)


def conv(name, kernel, bias, style):
    both = np.empty((1, 2), object)
    both[0, 0], both[0, 1] = kernel, bias[:, None]
    tensors = {"filters": kernel, "biases": bias[None]} if style == "filters" else {"weights": both}
    return {"type": "conv", "name": name, "stride": 1, "pad": 1, **tensors}


def keras_input(images):
    """The `caffe` mode: BGR in 0-255 minus the mean colour."""
    return (images * 255 - COLOUR).flip(1)


def matconvnet_input(images):
    return images * 255 - COLOUR


def check(path, made, prepared, images):
    """The features, and the logits if there is a classifier, equal those of the network by 1e-5 of the largest."""
    layers = [layer.name for layer in arch.layers(made.network) if layer.kind != "conv"]
    found = FeatureExtractor(made.network.name, layers, weights=path)(images)
    x = prepared(images)
    for layer in arch.layers(made.network):
        x = made.features[layer.index](x)
        if layer.name in layers:
            assert (found[layer.name] - x).abs().max() < 1e-5 * x.abs().max()
    loaded = network.load(path, made.network.name)
    if loaded.head is not None:
        expected = made(prepared(images))
        assert (loaded(loaded.normalise(images)) - expected).abs().max() < 1e-5 * expected.abs().max()
    return loaded


@pytest.mark.parametrize("top", [True, False], ids=["whole", "notop"])
@pytest.mark.parametrize("style", ["W", "kernel:0", "full", "nested"])
def test_keras(style, top, model, images, tmp_path):
    write_keras(path := tmp_path / "own.h5", model, style=style, top=top)
    assert (check(path, model, keras_input, images).head is None) != top


@pytest.mark.parametrize("archive", [False, True], ids=[".weights.h5", ".keras"])
def test_keras_3_names_no_blocks_and_shapes_tell_them(archive, images, tmp_path):
    made = vgg("vgg11", head="gap", num_classes=3, seed=0).eval()
    linear = made.classifier[0]
    write_keras(path := tmp_path / "own.weights.h5", made, style="keras 3", top=False)
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/0"] = linear.weight.detach().T.numpy()
        file["layers/dense/vars/1"] = linear.bias.detach().numpy()
    if archive:
        with zipfile.ZipFile(tmp_path / "own.keras", "w") as keras:
            keras.write(path, "model.weights.h5")
        path = tmp_path / "own.keras"
    assert check(path, made, keras_input, images).head == "gap"
    assert weights.named_network(path) == "vgg11"


def test_convolutions_in_any_order_of_names(tmp_path):
    """Ten blocks: block10 sorts before block2."""
    made = vgg(",M,".join(["4"] * 10), head=None, seed=0).eval()
    write_keras(path := tmp_path / "own.h5", made, top=False)
    found, _ = weights.load(made.network.name, path, input_order="rgb")
    assert all(torch.equal(found[f"features.{key}"], x) for key, x in made.features.state_dict().items())


@pytest.mark.parametrize("style", ["weights", "filters", "net"])
@pytest.mark.parametrize("top", [True, False], ids=["whole", "features"])
def test_matconvnet(style, top, model, images, tmp_path):
    write_mat(path := tmp_path / "own.mat", model, style=style, top=top)
    loaded = check(path, model, matconvnet_input, images)
    assert (loaded.head is None) != top
    if top and style != "filters":
        assert loaded.classes == ("cat", "dog", "fox")


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 1, 3), (5, 6, 3)])
def test_the_average_image_of_a_mat_file(shape, model, tmp_path):
    average = np.broadcast_to(np.array([10.0, 20, 30]).reshape(shape if 3 not in shape[-1:] else -1), shape)
    write_mat(path := tmp_path / "own.mat", model, average=average, top=False)
    _, entry = weights.load(PLAN, path)
    assert entry.mean == pytest.approx([10 / 255, 20 / 255, 30 / 255])
    assert (entry.std, entry.input_order) == (weights.BYTE_STD, "rgb")


def test_the_preprocessing_can_be_replaced(model, images, tmp_path):
    write_keras(path := tmp_path / "own.h5", model)
    found = FeatureExtractor(PLAN, "relu1_1", weights=path, mean=(0, 0, 0), std=(1, 1, 1), input_order="rgb")(images)
    expected = model.features[:2](images)
    torch.testing.assert_close(found["relu1_1"], expected)


def test_classification(model, tmp_path):
    write_mat(path := tmp_path / "own.mat", model)
    classify = Classifier(PLAN, path, device="cpu")
    assert {found.name for found in classify(torch.zeros(3, 20, 30))} == {"cat", "dog", "fox"}


def test_keras_weights_that_look_like_rgb_are_warned_of(tmp_path):
    made = vgg("vgg11", head=None, seed=0)
    state, _ = weights.load("vgg16", depth=1)
    made.features[0].weight.data = state["features.0.weight"]
    write_keras(path := tmp_path / "rgb.h5", made, top=False)
    with pytest.warns(UserWarning, match=r"'rgb.h5' are of Keras, .* look like weights that read RGB"):
        weights.load("vgg11", path)
    made.features[0].weight.data = state["features.0.weight"].flip(1)
    write_keras(path, made, top=False)
    weights.load("vgg11", path)


def save_hdf5(path, **data):
    with h5py.File(path, "w") as file:
        for name, shape in data.items():
            file[name.replace("__", "/")] = np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"pictures": (2, 8, 8)}, "holds 'pictures'"),
        ({}, "is an HDF5 file that holds no convolution of Keras"),
        ({"block1_conv1__W": (64, 3, 3, 3)}, r"holds a kernel 64x3x3x3: only kernels \(h, w, in, out\) are read"),
        ({"block1_bn__gamma": (8,), "block1_bn__beta": (8,)}, r"holds 'block1_bn' \(8, 8\): only conv"),
        ({"conv2d__W": (3, 3, 3, 8)}, "holds 1 convolutions that are not those of a VGG, and whose names do not tell"),
    ],
)  # fmt: skip
def test_other_hdf5_files_are_refused(data, reason, tmp_path):
    save_hdf5(path := tmp_path / "other.h5", **data)
    with pytest.raises(WeightsError, match=f"other.h5' {reason}"):
        weights.load(PLAN, path)


def test_other_mat_files_are_refused(tmp_path):
    path = tmp_path / "other.mat"
    scipy.io.savemat(path, {"features": np.zeros(3)})
    with pytest.raises(WeightsError, match="is a MATLAB file without `layers`"):
        weights.load(PLAN, path)
    cell = np.empty((1, 1), object)
    cell[0, 0] = {"type": "bnorm", "name": "bn1"}
    scipy.io.savemat(path, {"layers": cell})
    with pytest.raises(WeightsError, match="holds the layer 'bn1' of type bnorm"):
        weights.load(PLAN, path)
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(600))
    with pytest.raises(WeightsError, match=r"is a MATLAB 7.3 file: save it with -v7"):
        weights.load(PLAN, path)


@pytest.mark.parametrize("write", [write_keras, write_mat])
def test_truncated_files_are_refused(write, model, tmp_path):
    write(path := tmp_path / "own.file", model)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match="cannot be read, or is truncated"):
        weights.load(PLAN, path)


@pytest.mark.parametrize(("write", "package"), [(write_keras, "h5py"), (write_mat, "scipy")])
def test_a_package_that_is_missing_is_named(write, package, model, tmp_path, monkeypatch):
    write(path := tmp_path / "own.file", model)
    for name in (package, "scipy.io"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(WeightsError, match=rf'own.file\' needs {package}: pip install "vggfeat\[export\]"'):
        weights.load(PLAN, path)
