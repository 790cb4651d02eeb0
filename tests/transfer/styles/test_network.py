import pytest
import torch
import torch.nn.functional as F

from vggfeat.errors import InputError
from vggfeat.transfer.styles.network import StyleNetwork
from vggfeat.transfer.styles.widths import StyleWidths, sizes


@pytest.mark.parametrize("size", [(8, 8), (9, 14), (31, 30), (33, 47)])
def test_a_painting_has_the_size_of_its_picture(styles, size):
    network = styles.network
    painting = network(torch.rand(2, 3, *size), network.mix({"dots": 1}))
    assert painting.shape == (2, 3, *size)
    assert painting.min() >= 0
    assert painting.max() <= 1


def reference(network, picture, style):
    """The network written out with torch's own modules."""
    heights, widths = sizes(picture.shape[2]), sizes(picture.shape[3])
    state = network.state_dict()

    def unit(name, x, *, stride=1):
        weight = state[f"{name}.weight"]
        x = F.conv2d(F.pad(x, [weight.shape[-1] // 2] * 4, mode="reflect"), weight, stride=stride)
        return x + picture * state["gate"][style].reshape(1, -1, 1, 1) if name == "leave" else x

    def norm(name, x):
        return F.instance_norm(x, weight=state[f"{name}.scale"][style], bias=state[f"{name}.shift"][style])

    def bounded(name, x):
        scale, shift = (state[f"{name}.{kind}"][style].reshape(1, -1, 1, 1) for kind in ("scale", "shift"))
        return 2 * torch.tanh(F.instance_norm(x) / 2) * scale + shift

    def up(x, level):
        return F.interpolate(x, scale_factor=2)[:, :, : heights[level], : widths[level]]

    x = F.relu(bounded("enter", unit("enter", picture)))
    x = F.relu(bounded("down1", unit("down1", x, stride=2)))
    x = F.relu(bounded("down2", unit("down2", x, stride=2)))
    for block in range(1, network.widths.blocks + 1):
        inner = F.relu(bounded(f"block{block}a", unit(f"block{block}a", x)))
        x = x + bounded(f"block{block}b", unit(f"block{block}b", inner))
    x = F.relu(bounded("up1", unit("up1", up(x, 1))))
    x = F.relu(bounded("up2", unit("up2", up(x, 0))))
    return torch.sigmoid(norm("leave", unit("leave", x)))


@pytest.mark.parametrize("style", [0, 1])
def test_it_is_the_network_of_the_papers_with_bounds(styles, style):
    picture = torch.rand(1, 3, 29, 38)
    network = styles.network
    with torch.no_grad():
        painting = network(picture, network.mix({network.names[style]: 1}))
        assert torch.allclose(painting, reference(network, picture, style), atol=1e-5)


def test_each_picture_of_a_batch_has_its_own_style(styles):
    network, pictures = styles.network, torch.rand(2, 3, 20, 24)
    mixes = torch.eye(2)
    with torch.no_grad():
        both = network(pictures, mixes)
        for number in range(2):
            one = network(pictures[number : number + 1], mixes[number : number + 1])
            assert torch.allclose(both[number : number + 1], one, atol=1e-6)


def test_a_mix_is_the_mean_of_scales_and_shifts(styles):
    network = styles.network
    mean = StyleNetwork(["mean"], network.widths)
    state = {
        name: (2 * x[:1] + x[1:]) / 3 if name.endswith(("scale", "shift", "gate")) else x
        for name, x in network.state_dict().items()
    }
    mean.load_state_dict(state)
    picture = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        mixed = network(picture, network.mix({"waves": 2, "dots": 1}))
        assert torch.allclose(mixed, mean(picture, mean.mix({"mean": 5})), atol=1e-5)


@pytest.mark.parametrize("weights", [{"waves": 0}, {"waves": -1, "dots": 2}, {"waves": float("nan")}])
def test_weights_of_a_mix_are_checked(styles, weights):
    with pytest.raises(InputError, match="at least 0"):
        styles.network.mix(weights)


def test_a_flat_picture_shows_neither_border_nor_checkerboard():
    network = StyleNetwork(["a"], StyleWidths(5, 6, 8, blocks=1)).eval()
    with torch.no_grad():
        painting = network(torch.full((1, 3, 32, 40), 0.3), network.mix({"a": 1}))
    assert painting.std(dim=(2, 3)).max() < 1e-4


def test_a_picture_that_is_too_small_is_refused(styles):
    with pytest.raises(InputError, match="7x30 pixels: an instant style needs at least 8"):
        styles.network(torch.rand(1, 3, 30, 7), styles.network.mix({"dots": 1}))


def test_the_colours_of_a_style_are_where_training_starts():
    network = StyleNetwork(["a"], StyleWidths(4, 4, 4, blocks=1)).eval()
    style = torch.rand(1, 3, 50, 50) * 0.4 + torch.tensor([0.1, 0.3, 0.5]).reshape(1, 3, 1, 1)
    network.start_style(0, style)
    with torch.no_grad():
        painting = network(torch.rand(1, 3, 64, 64), network.mix({"a": 1}))
    assert torch.allclose(painting.logit().mean((2, 3)), style.logit().mean((2, 3)), atol=1e-3)
    assert torch.allclose(painting.logit().std((2, 3)), style.logit().std((2, 3)), atol=1e-2)
