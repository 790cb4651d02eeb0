import hashlib
import warnings
from types import SimpleNamespace

import DISTS_pytorch
import lpips
import piq
import pytest
import torch
import torchvision
from peers import serve_features, torchvision_features
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from vggfeat import ADISTS, DISTS, LPIPS, STLPIPS, DISTSLoss, FeatureExtractor, LPIPSLoss, PerceptualLoss, StyleLoss
from vggfeat.errors import InputError, WeightsError
from vggfeat.networks import weights
from vggfeat.pictures import images

NETWORKS = {"vgg": "vgg16", "alex": "alexnet"}
PUBLISHED = (LPIPS, DISTS, STLPIPS, ADISTS)
PICTURES = weights.find_entry("vgg16").path.parents[1] / "images"


@pytest.fixture(scope="module")
def pairs():
    """Two pairs: noise, and a photograph against itself blurred. (2, 3, 64, 96) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    photograph = images.resize(images.read_picture(PICTURES / "chelsea.jpg").rgb, 64, 96)
    blurred = images.resize(images.resize(photograph, 16, 24), 64, 96)
    noise = torch.rand(2, 3, 64, 96, generator=generator)
    return torch.cat([noise[:1], photograph]), torch.cat([noise[1:], blurred])


def reference(net, version="0.1", **options):
    """The lpips package's own module with our trunk's weights in it."""
    model = lpips.LPIPS(net=net, version=version, pnet_rand=True, verbose=False, **options)
    state, _ = weights.load(NETWORKS[net])
    theirs = {key: state[f"features.{key.split('.', 1)[1]}"] for key in model.net.state_dict()}
    model.net.load_state_dict(theirs)
    return model


@pytest.fixture(autouse=True)
def _quick_torchvision(monkeypatch):
    """The packages build torchvision's networks for their `features`, with arguments that warn."""
    serve_features(monkeypatch, *NETWORKS.values())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchvision")
        yield


@pytest.mark.parametrize("version", ["0.1", "0.0"])
@pytest.mark.parametrize("net", NETWORKS)
def test_lpips_is_the_lpips_packages(net, version, pairs):
    theirs = reference(net, version)(*(x * 2 - 1 for x in pairs)).flatten()
    ours = LPIPS(net, version=version, reduction="none")(*pairs)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(LPIPS(net, version=version)(*pairs), theirs.mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("net", NETWORKS)
def test_exact_lpips_is_equal_to_the_bit(net, pairs):
    signed = [x * 2 - 1 for x in pairs]
    theirs = reference(net)(*signed).flatten()
    assert torch.equal(LPIPS(net, exact=True, input_range="signed", reduction="none")(*signed), theirs)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("net", NETWORKS)
def test_spatial_lpips(net, exact, pairs):
    theirs = reference(net, spatial=True)(*(x * 2 - 1 for x in pairs))
    ours = LPIPS(net, spatial=True, exact=exact)(*pairs)
    assert ours.shape == (2, 1, 64, 96)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exact", [False, True])
def test_gradient_is_the_lpips_packages(exact, pairs):
    x = pairs[0].clone().requires_grad_()
    (theirs,) = torch.autograd.grad(reference("vgg")(x, pairs[1], normalize=True).sum(), x)
    (ours,) = torch.autograd.grad(LPIPS("vgg", exact=exact, reduction="none")(x, pairs[1]).sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=(1e-6 if exact else 1e-5) * theirs.abs().max().item())


@pytest.mark.parametrize("exact", [False, True])
def test_gradient_is_finite_where_features_are_zero(exact):
    """The lpips package gives NaN here (PerceptualSimilarity issues 69 and 121)."""
    loss = LPIPSLoss("vgg", exact=exact)
    generator = torch.Generator().manual_seed(0)
    features = {name: torch.zeros(1, len(loss.get_buffer(f"head{i}")), 3, 3) for i, name in enumerate(loss.layers)}
    other = {name: torch.rand(x.shape, generator=generator) for name, x in features.items()}
    leaves = {name: x.requires_grad_() for name, x in features.items()}
    loss(leaves, loss.target(other)).backward()
    assert all(x.grad.isfinite().all() for x in leaves.values())


@pytest.mark.parametrize("spatial", [False, True])
def test_head_distance_gradients(spatial):
    loss = LPIPSLoss("alex", spatial=spatial, reduction="none").double()
    loss.weights = {"relu1_1": 1.0}
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 2, 64, 3, 2, dtype=torch.float64, generator=generator)
    image = torch.zeros(2, 3, 5, 4, dtype=torch.float64)

    def distance(x, y):
        return loss({"relu1_1": x, "image": image}, {"relu1_1": y})

    assert torch.autograd.gradcheck(distance, (x.requires_grad_(), y.requires_grad_()))


def test_head_distance_does_not_depend_on_parts(monkeypatch, pairs):
    whole = LPIPS()(*pairs)
    monkeypatch.setattr("vggfeat.losses.lpips.POSITIONS", 7)
    torch.testing.assert_close(LPIPS()(*pairs), whole)


def test_equal_images_are_at_no_distance(pairs):
    for criterion in (LPIPS("alex"), *(make() for make in PUBLISHED)):
        assert criterion(pairs[0], pairs[0]).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("value", [0.0, 0.5, 0.9, 1.0])
def test_equal_flat_images_are_at_no_distance(value):
    flat = torch.full((1, 3, 64, 64), value)
    for criterion in (make() for make in PUBLISHED):
        assert criterion(flat, flat.clone()).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("make", PUBLISHED)
def test_float16_keeps_its_gradient_over_many_positions(make):
    """A mean over many positions gives each a gradient that float16 rounds to zero, unless it is scaled."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 2, 3, 40, 40, generator=generator)
    x.requires_grad_()
    gradients = []
    for precision in ("float32", "float16"):
        (gradient,) = torch.autograd.grad(make(precision=precision)(x, y), x)
        gradients.append(gradient.flatten())
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98
    assert gradients[1].norm() / gradients[0].norm() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("make", [LPIPSLoss, DISTSLoss, lambda: LPIPSLoss(exact=True)])
def test_losses_over_features_keep_their_precision_under_autocast(make, pairs):
    loss = make()
    names = [name for name in loss.layers if name != "image"]
    extract = FeatureExtractor("vgg16", names, pooling="l2" if "image" in loss.layers else "max")
    features, target = ({**extract(x), "image": x} for x in pairs)
    expected = loss(features, loss.target(target))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(features, loss.target(target)), expected)


def test_half_precision_keeps_the_heads():
    loss = LPIPS().half().loss
    assert loss.get_buffer("head0").dtype == torch.float32
    assert torch.equal(loss.get_buffer("head0"), LPIPSLoss().get_buffer("head0"))


def test_both_images_get_a_gradient_when_asked(pairs):
    for make in PUBLISHED:
        x, y = (z.clone().requires_grad_() for z in pairs)
        make(both=True)(x, y).backward()
        assert x.grad.abs().sum() > 0
        assert y.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "make", [pytest.param(each, marks=[] if each is STLPIPS else pytest.mark.slow) for each in PUBLISHED]
)
def test_exports_with_a_batch_of_any_size(make, pairs):
    criterion = make()
    batch = torch.export.Dim("batch", min=2, max=16)
    program = torch.export.export(criterion, tuple(pairs), dynamic_shapes=({0: batch}, {0: batch}))
    more = [x.repeat(2, 1, 1, 1) for x in pairs]
    torch.testing.assert_close(program.module()(*more), criterion(*more))


def test_layers_add_up(pairs):
    for criterion in (make(reduction="none") for make in PUBLISHED):
        parts = criterion.loss.per_layer(*criterion.compared(*pairs))
        assert list(parts) == list(criterion.loss.layers)
        torch.testing.assert_close(sum(parts.values()), criterion(*pairs))


def test_dists_published_value():
    """torchmetrics, image/dists.py: the mean of ten pairs of noise."""
    torch.manual_seed(42)
    assert DISTS()(torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)).item() == pytest.approx(0.1882, abs=5e-5)


@pytest.fixture
def dists_pytorch():
    """The original's module with our trunk's weights and its own alpha and beta."""
    model = DISTS_pytorch.DISTS(load_weights=False)
    state, _ = weights.load("vgg16")
    keys = [key for key in model.state_dict() if key.startswith("stage") and not key.endswith("filter")]
    model.load_state_dict({key: state[f"features.{key.split('.', 1)[1]}"] for key in keys}, strict=False)
    tables = torch.load(f"{DISTS_pytorch.__path__[0]}/weights.pt", map_location="cpu", weights_only=True)
    model.alpha.data, model.beta.data = tables["alpha"], tables["beta"]
    return model


def test_dists_is_the_originals(pairs, dists_pytorch):
    torch.testing.assert_close(DISTS(reduction="none")(*pairs), dists_pytorch(*pairs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "smaller"), [((75, 80), (64, 68)), ((75, 125), (64, 106))])
def test_dists_resized_as_the_original_does(size, smaller, dists_pytorch):
    x, y = torch.rand(2, 1, 3, *size)
    assert torchvision.transforms.functional.resize(x, 64).shape[2:] == smaller
    smaller = [images.resize(z, *smaller) for z in (x, y)]
    torch.testing.assert_close(DISTS(resize=64)(x, y), dists_pytorch(*smaller), rtol=1e-4, atol=1e-4)
    assert DISTS(resize=64)(x, y) != DISTS()(x, y)


@pytest.fixture
def _piq_offline(monkeypatch):
    """Serve piq its trunk from our weights, and the heads and tables that it downloads from the packages."""
    state, _ = weights.load("vgg16")

    def vgg16(**_options):
        features = torchvision_features("vgg16")
        features.load_state_dict({key.removeprefix("features."): x for key, x in state.items()})
        return SimpleNamespace(features=features)

    def download(url, **_options):
        if "dists" in url:
            return {name: x.reshape(1, -1, 1, 1) for name, x in weights.load_dists().items()}
        return [LPIPSLoss("vgg").get_buffer(f"head{number}").reshape(1, -1, 1, 1) for number in range(5)]

    monkeypatch.setattr("piq.perceptual.vgg16", vgg16)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)


@pytest.mark.usefixtures("_piq_offline")
@pytest.mark.parametrize(("ours", "theirs"), [(LPIPS, piq.LPIPS), (DISTS, piq.DISTS)])
def test_values_are_piqs(ours, theirs, pairs):
    torch.testing.assert_close(
        ours(reduction="none")(*pairs), theirs(reduction="none")(*pairs).flatten(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.usefixtures("_piq_offline")
def test_style_and_content_are_piqs(pairs):
    """Piq leaves Gram matrices undivided, and sums its content loss over channels."""
    ours = StyleLoss(["relu1_2", "relu2_2"], divide_by="none")
    theirs = piq.StyleLoss(layers=["relu1_2", "relu2_2"], weights=[1.0, 1.0])
    torch.testing.assert_close(ours(*pairs), theirs(*pairs), rtol=1e-3, atol=0)
    ours = PerceptualLoss({"relu2_2": 1.0})
    theirs = piq.ContentLoss(layers=["relu2_2"])
    torch.testing.assert_close(ours(*pairs) * 128, theirs(*pairs), rtol=1e-3, atol=0)


def test_heads_are_frozen_and_deterministic(pairs):
    """The lpips package's heads are trainable, and its .train() turns dropout on (torchmetrics issue 2315)."""
    criterion = LPIPS().train()
    assert not criterion.training
    assert not list(criterion.parameters())
    assert not criterion.state_dict()
    assert torch.equal(criterion(*pairs), criterion(*pairs))


def test_input_ranges_agree(pairs):
    unit = LPIPS()(*pairs)
    torch.testing.assert_close(LPIPS(input_range="signed")(*(x * 2 - 1 for x in pairs)), unit)
    torch.testing.assert_close(DISTS(input_range="byte")(*(x * 255 for x in pairs)), DISTS()(*pairs))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("make", PUBLISHED)
def test_half_precision_is_close_and_its_gradient_finite(make, precision, pairs):
    x, y = (z[1:, :, :48, :48].clone() for z in pairs)
    x.requires_grad_()
    exact = make()(x, y)
    half = make(precision=precision)(x, y)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=0.03)
    gradients = [torch.autograd.grad(value, x)[0].flatten() for value in (exact, half)]
    # In a window, the variance may be small, and the rounding of features matters more.
    assert torch.cosine_similarity(*gradients, dim=0) > (0.8 if make is ADISTS else 0.9)
    black = torch.zeros_like(x[..., :32, :32]).requires_grad_()
    (gradient,) = torch.autograd.grad(make(precision=precision)(black, y[..., :32, :32]), black)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "make",
    [*(pytest.param(deep, marks=pytest.mark.slow) for deep in PUBLISHED), lambda: LPIPS("alex", spatial=True)],
)
def test_compiles_without_a_break(make, pairs):
    criterion = make()
    x = pairs[0].clone().requires_grad_()
    plain = criterion(x, pairs[1])
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")(x, pairs[1])
    torch.testing.assert_close(compiled, plain)
    ours, theirs = (torch.autograd.grad(value.sum(), x)[0] for value in (plain, compiled))
    # A graph keeps torch's own convolutions: where two values of a pooling window nearly tie, another one wins.
    assert torch.linalg.norm(ours - theirs) < 1e-2 * torch.linalg.norm(theirs)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("net", NETWORKS)
def test_state_dicts_of_the_lpips_package(net, whole, tmp_path, pairs):
    """Trained heads, alone in a file or with the network in a model's checkpoint."""
    theirs = reference(net)
    with torch.no_grad():
        for number in range(5):
            getattr(theirs, f"lin{number}").model[1].weight.mul_(number + 1)
        if whole:
            theirs.net.slice1[0].weight.mul_(0.9)
    expected = theirs(*pairs, normalize=True).flatten()
    state = theirs.state_dict()
    if whole:
        found = LPIPS.from_lpips({f"module.loss.{key}": x for key, x in state.items()}, net, reduction="none")
    else:
        torch.save({key: x for key, x in state.items() if key.startswith("lin")}, tmp_path / "heads.pth")
        found = LPIPS(net, heads=tmp_path / "heads.pth", reduction="none")
    torch.testing.assert_close(found(*pairs), expected, rtol=1e-5, atol=1e-5)


def test_heads_that_do_not_fit():
    heads = {f"lin{i}.model.1.weight": LPIPS("alex").loss.get_buffer(f"head{i}") for i in range(5)}
    with pytest.raises(WeightsError, match=r"the state dict has LPIPS heads of \[64, 192, .*'vgg' needs \[64, 128,"):
        LPIPS("vgg", heads=heads)
    with pytest.raises(WeightsError, match="heads of no channels"):
        LPIPS("vgg", heads={})


def test_the_convention_of_gaussian_splatting(pairs):
    """Images in [0, 1] go where [-1, 1] is meant (gaussian-splatting issue 1239)."""
    theirs = reference("vgg")(*pairs).flatten()
    torch.testing.assert_close(LPIPS(convention="3dgs", reduction="none")(*pairs), theirs, rtol=1e-5, atol=1e-5)
    signed = LPIPS(convention="3dgs", input_range="signed", reduction="none")(*(x * 2 - 1 for x in pairs))
    torch.testing.assert_close(signed, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("net", NETWORKS)
def test_the_convention_of_torchmetrics(net, pairs, monkeypatch):
    def features(name, *_options):
        model = torchvision_features(name)
        state, _ = weights.load(name)
        model.load_state_dict({key.removeprefix("features."): x for key, x in state.items()})
        return model

    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", features)
    theirs = LearnedPerceptualImagePatchSimilarity(net_type=net, reduction="mean")
    ours = LPIPS(None if net == "alex" else net, convention="torchmetrics")
    assert (ours.loss.net, ours.trunk.input_range) == (net, "signed")
    signed = [x * 2 - 1 for x in pairs]
    torch.testing.assert_close(ours(*signed), theirs(*signed), rtol=1e-5, atol=1e-6)
    # The place of their epsilon matters for the smallest features only.
    x, y = (torch.rand(2, 64, 3, 3) * 1e-5 for _ in range(2))
    units = [z / (z.square().sum(1, keepdim=True) + 1e-8).sqrt() for z in (x, y)]
    ours.loss.weights = {"first": 1.0}
    expected = ((units[0] - units[1]).square() * ours.loss.get_buffer("head0")[:, None, None]).sum(1).mean()
    torch.testing.assert_close(ours.loss({"first": x}, {"first": y}), expected)


def test_conventions_by_name(pairs):
    assert torch.equal(LPIPS(convention="pyiqa")(*pairs), LPIPS("alex")(*pairs))
    assert torch.equal(LPIPS(convention="basicsr")(*pairs), LPIPS("vgg")(*pairs))
    with pytest.raises(InputError, match="unknown convention 'pyqa': did you mean pyiqa"):
        LPIPS(convention="pyqa")
    with pytest.raises(InputError, match=r"convention='3dgs' is defined for version='0\.1' only"):
        LPIPS(convention="3dgs", version="0.0")


def test_squeeze_is_the_lpips_packages(pairs):
    model = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    state = {f"features.{key.split('.', 1)[1]}": x for key, x in model.net.state_dict().items()}
    ours = LPIPS("squeeze", weights=state, reduction="none")
    torch.testing.assert_close(ours(*pairs), model(*pairs, normalize=True).flatten(), rtol=1e-5, atol=1e-5)
    assert not list(ours.parameters())
    assert not ours.state_dict()
    assert ours.to("meta")(*(x.to("meta") for x in pairs)).device.type == "meta"


def test_squeeze_offline_says_what_is_bundled(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path / "cache"))

    def refuse(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    file = r"squeezenet1_1-b8a52dc0\.pth"
    with pytest.raises(
        WeightsError,
        match=r"squeezenet1_1 are not bundled and could not be downloaded \(no route to host\); those of vgg and "
        rf"alex are bundled; or put torchvision's {file} into '.*cache', or pass a file's path$",
    ):
        LPIPS("squeeze")
    assert capfd.readouterr() == ("", "")


def test_squeeze_downloads_in_silence_once(tmp_path, monkeypatch, capfd, pairs):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("VGGFEAT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "file"
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=f"{tmp_path.as_uri()}/squeezenet1_1-{digits}.pth"))
    file.rename(tmp_path / f"squeezenet1_1-{digits}.pth")
    monkeypatch.setattr("torchvision.models.SqueezeNet1_1_Weights", weights)
    values = [LPIPS("squeeze")(*pairs)]
    (tmp_path / f"squeezenet1_1-{digits}.pth").rename(file)
    values.append(LPIPS("squeeze")(*pairs))
    assert values[0] == values[1] == LPIPS("squeeze", weights=file)(*pairs)
    assert capfd.readouterr() == ("", "")


def test_small_images_are_refused_by_name():
    with pytest.raises(InputError, match="15x64 pixels are too small for relu5_3 of vgg16: it needs at least 16"):
        LPIPS()(*torch.rand(2, 1, 3, 15, 64))
    with pytest.raises(InputError, match="too small for relu3_3 of alexnet: it needs at least 31 a side"):
        LPIPS("alex")(*torch.rand(2, 1, 3, 30, 64))
    with pytest.raises(InputError, match=r"too small for features\.12 of squeezenet1_1: it needs at least 17 a side"):
        LPIPS("squeeze", weights=None)(*torch.rand(2, 1, 3, 16, 64))
    LPIPS("squeeze", weights=None)(*torch.rand(2, 1, 3, 17, 17))


def test_words_are_checked():
    with pytest.raises(InputError, match="unknown net 'vgg16': did you mean vgg"):
        LPIPS("vgg16")
    with pytest.raises(InputError, match=r"unknown version '0\.2'"):
        LPIPS(version="0.2")
    for reduction, kind in ((None, "NoneType"), (2, "int")):
        with pytest.raises(
            InputError, match=f"unknown reduction '{reduction}': it is of type {kind}; choose from mean"
        ):
            LPIPS("alex", reduction=reduction)


def test_share_a_pass_with_other_losses(pairs):
    """The loss alone reads what an extractor gave."""
    loss = LPIPSLoss("vgg")
    extract = FeatureExtractor("vgg16", [*loss.layers, "relu3_1"])
    torch.testing.assert_close(loss(extract(pairs[0]), loss.target(extract(pairs[1]))), LPIPS()(*pairs))
    dists = DISTSLoss()
    extract = FeatureExtractor("vgg16", dists.layers[1:], pooling="l2")
    features, target = ({**extract(x), "image": x} for x in pairs)
    torch.testing.assert_close(dists(features, dists.target(target)), DISTS()(*pairs))


def test_device(device, pairs):
    for make in PUBLISHED:
        there = make(device=device)(*(x.to(device) for x in pairs))
        assert there.item() == pytest.approx(make()(*pairs).item(), rel=1e-3)


def test_no_device_is_assumed(pairs):
    for make in PUBLISHED:
        x = pairs[0].to("meta").requires_grad_()
        value = make(device="meta")(x, pairs[1].to("meta"))
        value.backward()
        assert value.device.type == x.grad.device.type == "meta"
