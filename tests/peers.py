"""torchvision's networks without their classifiers, whose random values take seconds to draw."""

from types import SimpleNamespace

import torch
import torchvision
from torch import nn


def torchvision_features(network: str) -> nn.Sequential:
    """The `features` of a network of torchvision with random weights, in evaluation mode."""
    with torch.device("meta"):
        features = torchvision.models.get_model(network, weights=None).features
    features.to_empty(device="cpu")
    for module in features.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return features.eval()


def serve_features(monkeypatch, *networks: str) -> None:
    """Let packages that call torchvision's builders and read `features` get those of `torchvision_features`."""
    for network in networks:

        def build(*_arguments, network=network, **_options):
            return SimpleNamespace(features=torchvision_features(network))

        monkeypatch.setattr(f"torchvision.models.{network}", build)
