"""Networks as data: plans, layer tables, lookups of layers, costs and heads. No torch.

The public module of `plans`, `layers`, `heads` and `lookup`.

>>> from vggfeat import arch
>>> [layer.name for layer in arch.find_layers("vgg16", "relu?_3")], arch.count_parameters("vgg16").total
(['relu3_3', 'relu4_3', 'relu5_3'], 138357544)
"""

from vggfeat.networks.heads import (
    HEAD_SIDE,
    PUBLISHED,
    PUBLISHED_MILLIONS,
    Head,
    KernelStack,
    Parameters,
    Published,
    count_parameters,
    head_layers,
    head_of,
    head_shapes,
    kernel_stack,
    reads_classifier,
    weight_layers,
)
from vggfeat.networks.layers import (
    Kind,
    Layer,
    Pooling,
    SizedLayer,
    layers,
    minimum_side,
    parts,
    sized,
    state_shapes,
)
from vggfeat.networks.lookup import block_sides, find_layers, sized_layers
from vggfeat.networks.plans import (
    DEFAULT_SLOPE,
    LRN,
    NETWORKS,
    Activation,
    Conv,
    Network,
    Plan,
    Pool,
    format_plan,
    is_vgg,
    network,
    parse_plan,
    same_stack,
    simplest,
)

__all__ = [
    "DEFAULT_SLOPE", "HEAD_SIDE", "LRN", "NETWORKS", "PUBLISHED", "PUBLISHED_MILLIONS", "Activation", "Conv",
    "Head", "KernelStack", "Kind", "Layer", "Network", "Parameters", "Plan", "Pool", "Pooling", "Published",
    "SizedLayer", "block_sides", "count_parameters", "find_layers", "format_plan", "head_layers", "head_of",
    "head_shapes", "is_vgg", "kernel_stack", "layers", "minimum_side", "network", "parse_plan", "parts",
    "reads_classifier", "same_stack", "simplest", "sized", "sized_layers", "state_shapes", "weight_layers",
]  # fmt: skip
