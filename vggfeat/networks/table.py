"""The weights table: for each entry its network, source, licence, file, hash and preprocessing. No torch."""

from dataclasses import dataclass
from importlib import resources
from math import prod
from pathlib import Path
from typing import Literal

from vggfeat.errors import WeightsError
from vggfeat.networks import arch
from vggfeat.networks.downloads import cache_dir
from vggfeat.networks.preprocessing import BYTE_STD, IMAGENET_MEAN, IMAGENET_STD, OXFORD_MEAN, InputOrder, Triple


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """An entry of the weights table: the pretrained `features` of one network.

    `mean` and `std` are per RGB channel for images in [0, 1]: the network reads `(image - mean) / std`. `file` is the
    name of the bundled file, or of torchvision's file, which ends in the first eight digits of its sha256. `sha256` is
    that of the bundled file, and empty if the weights are downloaded. `input_order` is the order of the colours in the
    file; loaded weights always read RGB.

    >>> entry = find_entry("vgg16")
    >>> str(entry), entry.status, entry.licence
    ('vgg16 imagenet1k_v1', 'bundled', 'BSD-3-Clause')
    """

    network: str
    name: str
    file: str
    source: str
    licence: str = "BSD-3-Clause"
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    sha256: str = ""
    input_order: InputOrder = "rgb"

    def __str__(self) -> str:
        return f"{self.network} {self.name}"

    @property
    def bundled(self) -> bool:
        """Whether the weights ship inside vggfeat."""
        return bool(self.sha256)

    @property
    def url(self) -> str | None:
        """The address of torchvision's file; None for bundled weights."""
        return None if self.bundled else f"https://download.pytorch.org/models/{self.file}"

    @property
    def path(self) -> Path:
        """Where the features are on this machine, or will be after the download."""
        return bundled_path(self.file) if self.bundled else cache_dir() / f"{self.network}-{self.name}.safetensors"

    @property
    def status(self) -> Literal["bundled", "cached", "to be downloaded"]:
        """Where loading the entry gets its weights from."""
        if self.bundled:
            return "bundled"
        return "cached" if self.path.exists() else "to be downloaded"

    @property
    def size(self) -> int:
        """The size of the features on disk, in bytes."""
        if self.status == "to be downloaded":
            return 4 * sum(map(prod, arch.state_shapes(self.network).values()))
        return self.path.stat().st_size


_TORCHVISION = "torchvision IMAGENET1K_V1"

TABLE: tuple[WeightsEntry, ...] = (
    WeightsEntry(
        network="vgg16",
        name="imagenet1k_v1",
        file="vgg16-imagenet1k_v1.safetensors",
        source=_TORCHVISION,
        sha256="7dc6328ec55b42736a3e982368f46793507f83f918e436ba0cd6bbb7a2efb8bc",
    ),
    WeightsEntry(
        network="vgg19",
        name="oxford",
        file="vgg19-oxford.safetensors",
        source="Simonyan & Zisserman, coded to 256 values a layer",
        licence="CC-BY-4.0",
        mean=OXFORD_MEAN,
        std=BYTE_STD,
        sha256="d6c239f22273d1a5fd9038b6316d54bf391c9f0a04e6fe62bcb0aebf61df6bb4",
    ),
    WeightsEntry(
        network="alexnet",
        name="imagenet1k_v1",
        file="alexnet-imagenet1k_v1.safetensors",
        source=_TORCHVISION,
        sha256="b243b3b26ab6c7d55af770afea372013278ecf9d686152ac9d2b4025cb8c82f2",
    ),
    WeightsEntry(
        network="vgg16",
        name="oxford",
        file="vgg16_features-amdegroot-88682ab5.pth",
        source="torchvision IMAGENET1K_FEATURES",
        mean=(0.48235, 0.45882, 0.40784),
        std=BYTE_STD,
    ),
    WeightsEntry("vgg11", "imagenet1k_v1", "vgg11-8a719046.pth", _TORCHVISION),
    WeightsEntry("vgg13", "imagenet1k_v1", "vgg13-19584684.pth", _TORCHVISION),
    WeightsEntry("vgg19", "imagenet1k_v1", "vgg19-dcbb9e9d.pth", _TORCHVISION),
    WeightsEntry("vgg11_bn", "imagenet1k_v1", "vgg11_bn-6002323d.pth", _TORCHVISION),
    WeightsEntry("vgg13_bn", "imagenet1k_v1", "vgg13_bn-abd245e5.pth", _TORCHVISION),
    WeightsEntry("vgg16_bn", "imagenet1k_v1", "vgg16_bn-6c64b313.pth", _TORCHVISION),
    WeightsEntry("vgg19_bn", "imagenet1k_v1", "vgg19_bn-c79401a0.pth", _TORCHVISION),
)
"""All entries; the first of a network is its default."""

CONVERTED: tuple[WeightsEntry, ...] = tuple(
    WeightsEntry(
        network=network,
        name="caffe",
        file=file,
        source="Simonyan & Zisserman, converted from Caffe",
        licence="CC-BY-4.0",
        mean=OXFORD_MEAN,
        std=BYTE_STD,
        input_order="bgr",
    )
    for network, file in (("vgg16", "vgg16-00b39a1b.pth"), ("vgg19", "vgg19-d01eb7cb.pth"))
)
"""Well-known files that are not downloaded, but recognised by their sha256: Justin Johnson's conversions for torch."""

DISTS_FILE = "dists.safetensors"
DISTS_SHA256 = "745cdae1b30c00fe14c81d72f852015ae5c33dc3d83c49d4c928295c1cfc4ce9"
STLPIPS_FILE = "alexnet-stlpips.safetensors"
STLPIPS_SHA256 = "2036758722f30015b17e7704396d5fc36d2fc1b50a8c4d78d8ce75d9195317b9"


def find_entry(network: str, name: str = "default") -> WeightsEntry:
    """The entry `name` of a network; `default` is its first. Raises `WeightsError` if there is none.

    Names for the same network share entries: `D` has those of `vgg16`.

    >>> find_entry("D") is find_entry("vgg16", "imagenet1k_v1")
    True
    """
    entries = [entry for entry in TABLE if arch.same_stack(entry.network, network)]
    for entry in entries:
        if name in ("default", entry.name):
            return entry
    if not entries:
        raise WeightsError(f"no pretrained weights of {network} exist: pass a file, or weights=None for random ones")
    raise WeightsError(
        f"unknown weights '{name}' of {network}: choose from {', '.join(entry.name for entry in entries)}, "
        "a .pth or .safetensors file, or None"
    )


def entry_of_digest(network: str, sha256: str) -> WeightsEntry | None:
    """The entry whose file has this sha256, or None. The first eight digits decide, which end the file's name.

    >>> entry_of_digest("D", "d01eb7cb" + 56 * "0"), str(entry_of_digest("vgg16", "00b39a1b" + 56 * "0"))
    (None, 'vgg16 caffe')
    """
    for entry in (*TABLE, *CONVERTED):
        digits = Path(entry.file).stem.rpartition("-")[2]
        if not entry.bundled and arch.same_stack(entry.network, network) and sha256.startswith(digits):
            return entry
    whole = [name for name, file in WHOLE_FILES.items() if sha256.startswith(Path(file).stem.rpartition("-")[2])]
    return find_entry(network, "imagenet1k_v1") if whole and arch.same_stack(whole[0], network) else None


WHOLE_FILES = {"vgg16": "vgg16-397923af.pth", "alexnet": "alexnet-owt-7be5be79.pth"}
"""torchvision's files of the networks whose features are bundled."""


def bundled_path(file: str) -> Path:
    """The path of a bundled file."""
    return Path(str(resources.files("vggfeat_assets"))) / "weights" / file
