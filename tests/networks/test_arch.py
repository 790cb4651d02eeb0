import subprocess
import sys

import pytest
import torch
import torchvision

from vggfeat.errors import InputError, LayerError
from vggfeat.networks import arch

TORCHVISION = ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")
MODULES = {
    "conv": torch.nn.Conv2d,
    "bn": torch.nn.BatchNorm2d,
    "relu": torch.nn.ReLU,
    "pool": torch.nn.MaxPool2d,
}


def sized_layer(network, name):
    return next(layer for layer in arch.sized_layers(network) if layer.name == name)


@pytest.mark.parametrize("network", [*TORCHVISION, "alexnet"])
def test_stack_is_torchvisions(network):
    with torch.device("meta"):
        features = getattr(torchvision.models, network)(weights=None).features
        x = torch.empty(1, 3, 224, 160)
        parameters = 0
        for layer, module in zip(arch.sized_layers(network, 224, 160), features, strict=True):
            x = module(x)
            parameters += sum(tensor.numel() for tensor in module.parameters())
            assert isinstance(module, MODULES[layer.kind])
            assert x.shape == (1, layer.channels, layer.height, layer.width)
            assert parameters == layer.parameters
    shapes = {key: tuple(t.shape) for key, t in features.state_dict(prefix="features.").items() if t.ndim}
    assert shapes == arch.state_shapes(network)


@pytest.mark.parametrize("network", TORCHVISION)
def test_receptive_field_is_where_the_gradient_reaches(network):
    if network.endswith("_bn"):
        network = network.removesuffix("_bn")
    for name in ("relu1_1", "relu2_1", "pool2", "relu3_2"):
        [found] = arch.find_layers(network, name)
        stack = []
        for layer in arch.layers(network)[: found.index + 1]:
            # All-ones kernels and average pooling let every pixel of the field be felt.
            if layer.kind == "conv":
                conv = torch.nn.Conv2d(1, 1, layer.kernel, layer.step, layer.padding, bias=False)
                torch.nn.init.ones_(conv.weight)
                stack.append(conv)
            elif layer.kind == "pool":
                stack.append(torch.nn.AvgPool2d(layer.kernel, layer.step))
        x = torch.zeros(1, 1, 128, 128, requires_grad=True)
        y = torch.nn.Sequential(*stack)(x)
        middle = y.shape[-1] // 2
        (gradient,) = torch.autograd.grad(y[0, 0, middle, middle], x)
        felt = gradient[0, 0].nonzero()
        assert (felt.max(0).values - felt.min(0).values + 1).tolist() == [found.receptive_field] * 2
        assert 128 // y.shape[-1] == found.stride
        span = found.span(middle)
        assert felt.min(0).values.tolist() == [span.start] * 2
        assert felt.max(0).values.tolist() == [span[-1]] * 2


def test_where_positions_lie():
    for network in arch.NETWORKS:
        for layer in arch.layers(network):
            for position in (0, 1, 7):
                span = layer.span(position)
                assert len(span) == layer.receptive_field
                assert (span.start + span[-1]) / 2 == layer.offset + position * layer.stride
                assert layer.position(layer.offset + position * layer.stride) == position
    [relu] = arch.find_layers("vgg16", "relu3_3")
    assert relu.offset == 1.5  # max-pools of two leave the middle between pixels
    assert [relu.position(pixel) for pixel in (-3, 0, 3, 4, 7.4, 7.5)] == [-1, 0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("network", "name", "channels", "side", "field", "stride", "gmac", "millions"),
    [
        ("vgg16", "relu1_2", 64, 224, 5, 1, 1.936, 0.039),
        ("vgg16", "relu2_2", 128, 112, 14, 2, 4.711, 0.260),
        ("vgg16", "relu3_3", 256, 56, 40, 4, 9.335, 1.735),
        ("vgg16", "relu4_3", 512, 28, 92, 8, 13.959, 7.635),
        ("vgg16", "relu5_3", 512, 14, 196, 16, 15.347, 14.715),
        ("vgg16", "pool5", 512, 7, 212, 32, 15.347, 14.715),
        ("vgg19", "relu3_4", 256, 56, 48, 4, 11.185, None),
        ("vgg19", "relu4_4", 512, 28, 116, 8, None, None),
        ("vgg19", "relu5_4", 512, 14, 252, 16, 19.508, None),
        ("vgg19", "pool5", 512, 7, 268, 32, None, None),
        ("D", "relu3_3", 256, 56, 40, 4, 9.335, 1.735),
    ],
)
def test_published_numbers(network, name, channels, side, field, stride, gmac, millions):
    layer = sized_layer(network, name)
    assert (layer.channels, layer.height, layer.receptive_field, layer.stride) == (channels, side, field, stride)
    if gmac is not None:
        assert round(layer.macs / 1e9, 3) == gmac
    if millions is not None:
        assert round(layer.parameters / 1e6, 3) == millions


def test_indices_that_people_paste():
    indices = {
        name: found.index for name in ("conv1_1", "relu3_3", "pool5") for found in arch.find_layers("vgg16", name)
    }
    assert indices == {"conv1_1": 0, "relu3_3": 15, "pool5": 30}
    convolutions = [layer.index for layer in arch.layers("vgg16_bn") if layer.kind == "conv"]
    assert convolutions == [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]


def test_the_papers_plans():
    kinds = {name: [layer.name for layer in arch.layers(name)] for name in ("A-LRN", "C")}
    assert kinds["A-LRN"][:4] == ["conv1_1", "relu1_1", "lrn1_1", "pool1"]
    ones = [layer.name for layer in arch.layers("C") if layer.kind == "conv" and layer.kernel == 1]
    assert ones == ["conv3_3", "conv4_3", "conv5_3"]
    assert [arch.network(name).plan for name in "ABDE"] == [arch.network(f"vgg{n}").plan for n in (11, 13, 16, 19)]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ("relu3_3", ["relu3_3"]),
        ("15", ["relu3_3"]),
        (15, ["relu3_3"]),
        ([0, "relu1_1"], ["conv1_1", "relu1_1"]),
        ("features.15", ["relu3_3"]),
        ("relu?_1", ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]),
        (["relu3_*", "conv1_1", "relu3_1"], ["conv1_1", "relu3_1", "relu3_2", "relu3_3"]),
        ("pool1, relu1_1", ["relu1_1", "pool1"]),
    ],
)
def test_find(patterns, names):
    assert [layer.name for layer in arch.find_layers("vgg16", patterns)] == names


@pytest.mark.parametrize(
    ("network", "pattern", "message"),
    [
        ("vgg16", "relu3_5", "unknown layer 'relu3_5' of vgg16: block 3 has relu3_1, relu3_2, relu3_3"),
        ("vgg16", "31", "unknown layer '31' of vgg16: features has 0 to 30"),
        ("vgg16", "bn3_3", "its kinds are conv, relu, pool; did you mean conv3_3"),
        ("vgg16", "relu6_*", "relu layers are relu1_1, relu1_2"),
        ("vgg16", "xyz", "it has conv1_1 to pool5"),
        ("vgg16", "", "name one, such as relu3_1"),
        ("vgg12", "relu1_1", "unknown network 'vgg12', and not a plan such as 64,64,M,128,128,M: did you mean vgg1"),
    ],
)
def test_unknown_names_say_what_is_near(network, pattern, message):
    with pytest.raises(LayerError) as caught:
        arch.find_layers(network, pattern)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("network", ["vgg16", "C", "alexnet"])
@pytest.mark.parametrize("pooling", ["max", "l2"])
def test_minimum_size_is_exact(network, pooling):
    table = arch.layers(network, pooling=pooling)
    for number, layer in enumerate(table):
        for size in (layer.minimum_size, layer.minimum_size - 1):
            side = size
            for earlier in table[: number + 1]:
                side = earlier.output_side(side) if side > 0 else 0
            assert (side >= 1) == (size == layer.minimum_size)


def test_too_small_is_named():
    with pytest.raises(InputError, match="31x64 is too small for vgg16: pool5 needs at least 32"):
        arch.sized_layers("vgg16", 31, 64)


def test_needs_no_torch():
    modules = "vggfeat.networks.arch, vggfeat.networks.weights, vggfeat.transfer.stages"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A", "A"),
        ("vgg11+bn", "vgg11_bn"),
        ("A-LRN_bn+leaky_relu", "A-LRN_bn+leaky_relu:0.01"),
        ("64, 64,M,128+in:1+bn", "64,64,M,128+bn+in:1"),
        ("[64, 'M', conv1-8, 'LRN', M3s1p1]", "64,M,conv1-8,LRN,M3s1p1"),
        ("64,M,128,M,256,256,M,512,512,M,512,512,M", "vgg11"),
        ("conv3-64,conv5-8p2,conv11-8s4p2", "64,conv5-8,conv11-8s4p2"),
    ],
)
def test_a_plan_as_text_is_a_name(text, name):
    found = arch.network(text)
    assert found.name == name
    assert arch.network(name) == found == arch.network(found)
    assert arch.layers(text) == arch.layers(found)


@pytest.mark.parametrize("name", list(arch.NETWORKS))
def test_plans_are_written_and_read(name):
    plan = arch.network(name).plan
    assert arch.parse_plan(arch.format_plan(plan)) == plan
    assert arch.network(name) == arch.network(arch.network(arch.network(name)).name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64,Q", "a plan holds channels such as 64, M, LRN or conv1-256, not 'Q'"),
        ("64,,M", "not ''"),
        ("M,LRN,64", "in a plan, LRN must follow a convolution"),
        ("64,LRN,LRN", "in a plan, LRN must follow a convolution"),
        ("M,M", "has no convolution"),
        ("0,M", "0 is not a convolution of a plan"),
        ("64,M2s0", "is not a pool of a plan"),
        ("A+leaky", r"unknown variation '+leaky' of A: choose from +bn, +leaky_relu:0.01, +in:1"),
        ("A+leaky_relu:2", "the slope of an activation is 2: it must be between -1 and 1"),
        ("A+in:0", "in_channels is 0"),
        ("A+in:x", "unknown variation '+in:x' of A"),
    ],
)
def test_plans_that_cannot_be_read(text, message):
    with pytest.raises(LayerError) as caught:
        arch.network(text)
    assert message in str(caught.value)


def test_blocks_are_patterns():
    assert [layer.name for layer in arch.find_layers("A", "block2")] == ["conv2_1", "relu2_1", "pool2"]
    assert arch.find_layers("vgg16", "block1-5") == arch.layers("vgg16")
    with pytest.raises(LayerError, match="unknown blocks 'block6' of vgg16: it has block1 to block5"):
        arch.find_layers("vgg16", "block6")


def test_the_papers_tables():
    assert [arch.weight_layers(name) for name in arch.PUBLISHED_MILLIONS] == [11, 11, 13, 16, 16, 19]
    for name, millions in arch.PUBLISHED_MILLIONS.items():
        assert round(arch.count_parameters(name).total / 1e6) == millions
        assert arch.block_sides(name) == (224, 112, 56, 28, 14, 7)
    assert {layer.network for layer in arch.PUBLISHED} == set(arch.PUBLISHED_MILLIONS)
    assert all(layer.top5 < layer.top1 for layer in arch.PUBLISHED)


@pytest.mark.parametrize(
    ("kernel", "depth", "field", "weights"), [(3, 2, 5, 18), (5, 1, 5, 25), (3, 3, 7, 27), (7, 1, 7, 49)]
)
def test_kernels_compared(kernel, depth, field, weights):
    channels = 6
    stack = torch.nn.Sequential(*(torch.nn.Conv2d(channels, channels, kernel, bias=False) for _ in range(depth)))
    found = arch.kernel_stack(kernel, depth)
    assert found.weights * channels**2 == sum(tensor.numel() for tensor in stack.parameters()) == weights * channels**2
    assert stack(torch.zeros(1, channels, field, field)).shape[-1] == 1
    assert found.receptive_field == field
