import json

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from vggfeat import InstantStyles
from vggfeat.errors import InputError, WeightsError
from vggfeat.transfer.styles.network import StyleNetwork
from vggfeat.transfer.styles.widths import StyleWidths


@pytest.fixture
def path(styles, tmp_path):
    styles.save(tmp_path / "my.safetensors")
    return tmp_path / "my.safetensors"


def test_a_file_gives_back_the_network_in_half_precision(styles, path):
    loaded = InstantStyles.load(path)
    assert (loaded.names, loaded.licence, loaded.recipe, loaded.path) == (
        ("waves", "dots"),
        "MIT",
        {"steps": 1},
        str(path),
    )
    for name, x in styles.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], x.half().float())
    again = path.with_name("again.safetensors")
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_seven_styles_fit_in_four_megabytes(tmp_path):
    InstantStyles(StyleNetwork([f"style{number}" for number in range(7)])).save(tmp_path / "seven.safetensors")
    assert (tmp_path / "seven.safetensors").stat().st_size < 4_000_000


def rewritten(path, change):
    """The file with its metadata and tensors changed in place by `change`."""
    with safe_open(path, framework="pt") as file:
        ((key, text),) = file.metadata().items()
    about, state = json.loads(text), safetensors.torch.load_file(path)
    about = change(about, state) or about
    path.write_bytes(safetensors.torch.save(state, {key: about if isinstance(about, str) else json.dumps(about)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda *_: "{", "metadata cannot be read"),
        (lambda *_: "[]", "metadata cannot be read"),
        (lambda about, _: about.update(format="vggfeat styles 9"), "another version: 'vggfeat styles 9'"),
        (lambda about, _: {"format": about["format"]}, "metadata cannot be read"),
        (lambda about, _: about.update(styles=3), "metadata cannot be read"),
        (lambda about, _: about.update(styles=[]), "there is no style"),
        (lambda about, _: about.update(styles=["a", "a"]), "two styles are called a"),
        (lambda about, _: about.update(styles=["a", "b:1"]), "cannot name a style"),
        (lambda about, _: about.update(widths={"full": 0}), "width at full size is 0"),
        (lambda about, _: about.update(widths={"wide": 3}), "metadata cannot be read"),
        (lambda _, state: {} if state.pop("up1.scale") is None else None, "they lack up1.scale"),
        (lambda _, state: state.update(more=torch.zeros(1)), "they hold an unknown more"),
        (lambda _, state: state.update(gate=torch.zeros(2, 4)), "gate is 2x4, not 2x3"),
        (lambda _, state: state.update(gate=torch.full((2, 3), torch.nan)), "gate holds values that are not finite"),
        (lambda _, state: state.update(gate=torch.zeros(2, 3, dtype=torch.int8)), "gate holds values that are not"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(path, change, message):
    rewritten(path, change)
    with pytest.raises(WeightsError, match=message) as error:
        InstantStyles.load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read(tmp_path, path):
    with pytest.raises(WeightsError, match=r"no such file; did you mean 'my.safetensors'\?"):
        InstantStyles.load(tmp_path / "mi.safetensors")
    with pytest.raises(WeightsError, match="it is a folder"):
        InstantStyles.load(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="not a safetensors file, or is damaged"):
        InstantStyles.load(path)


def test_a_network_that_is_not_finite_is_not_written(tmp_path):
    network = StyleNetwork(["a"], StyleWidths(4, 4, 4, blocks=1))
    network.gate.data.fill_(1e9)
    with pytest.raises(InputError, match="not finite in float16"):
        InstantStyles(network).save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
