"""The network and the optimiser that a training recipe asks for."""

import torch
from torch import nn

from vggfeat.networks import network as networks
from vggfeat.networks import weights as weights_table
from vggfeat.networks.network import VGG
from vggfeat.training.dataset import Data
from vggfeat.training.recipe import TrainingRecipe


def build_network(recipe: TrainingRecipe, data: Data) -> VGG:
    """The network at the start of a run, with the classes and the preprocessing of `data`.

    Without `recipe.source`, mean and standard deviation are those of the training pictures. With it, they are those of
    the source, whose classifier is used too if it has the same shape and classes. Raises `WeightsError`.
    """
    architecture = recipe.architecture()
    model = networks.vgg(
        architecture,
        head=recipe.head,
        num_classes=len(data.classes),
        hidden=recipe.hidden,
        dropout=recipe.dropout,
        init=recipe.init,
        seed=recipe.seed,
    )
    model.classes, model.size, model.resize = data.classes, data.size, data.train.side
    if not recipe.source:
        model.mean, model.std = data.train.mean_std()
        return model
    features, known = weights_table.load(architecture.name, recipe.source, **recipe.preprocessing)
    model.mean, model.std = known.mean, known.std
    model.load_state_dict(features, strict=False)
    if path := weights_table.file_of(recipe.source):
        other = networks.load(path, architecture.name, **recipe.preprocessing)
        if (other.head, other.classes, other.hidden) == (model.head, model.classes, model.hidden):
            model.classifier.load_state_dict(other.classifier.state_dict())
    return model


def build_optimiser(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """AdamW or SGD over the parameters that require gradients; biases and normalisation have no weight decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
