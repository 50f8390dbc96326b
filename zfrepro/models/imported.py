"""Weights of torchvision's AlexNet and VGG as weights of a `Network`: the layer table gives the structure, torchvision's
own model the tensors. Batch normalisation (fixed after training) is folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zfrepro.errors import UserError
from zfrepro.models.network import Network


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals `conv` followed by `norm` in evaluation; computed in float64."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None and conv.bias is not None
    factor = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    weight = conv.weight.double() * factor[:, None, None, None]
    bias = (conv.bias.double() - mean.double()) * factor + norm.bias.double()
    return weight.to(conv.weight.dtype), bias.to(conv.bias.dtype)


@torch.no_grad()
def convert(network: Network, model: nn.Module) -> Network:
    """Copy the weights of torchvision's `model` (its `features` and `classifier`) into `network`, whose table is the same.

    Adaptive pooling between the two is the identity at 224 px and has no counterpart. Raises UserError where a layer of
    the table has another shape than torchvision's.
    """
    weights: list[tuple[Tensor, Tensor]] = []
    last: nn.Conv2d | None = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias is not None
            weights.append((module.weight, module.bias))
        if isinstance(module, nn.Conv2d):
            last = module
        elif isinstance(module, nn.BatchNorm2d):
            assert last is not None
            weights[-1] = fold_batch_norm(last, module)
    own = [module for module in network.weights.values() if isinstance(module, nn.Conv2d | nn.Linear)]
    shapes = [tuple(module.weight.shape) for module in own]
    theirs = [tuple(weight.shape) for weight, _ in weights]
    if shapes != theirs:
        raise UserError(f"model={network.config.name}: its table does not fit these weights: {shapes} against {theirs}")
    for module, (weight, bias) in zip(own, weights):
        module.weight.copy_(weight)
        assert module.bias is not None
        module.bias.copy_(bias)
    return network


def torchvision_model(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's model `name` with the weights `state`, in evaluation. Raises UserError where they do not fit."""
    from zfrepro.vision import torchvision

    classes = len(state["classifier.6.bias"])
    plain = {"init_weights": False} if name.startswith("vgg") else {}  # drawing 138 million numbers takes a while
    model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes, **plain)
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        why = " ".join(str(error).split())[:160]
        raise UserError(f"weights: they are not those of torchvision's {name} ({why})") from error
    return model.eval()
