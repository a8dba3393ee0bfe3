"""Whether the parts of a model fit the images and one another, asked before any image is there."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .networks.modes import in_evaluation

if TYPE_CHECKING:
    from .base import EncoderModule

#: Arguments of networks by which they fit or do not.
SIZES = ("image_size", "in_channels", "out_channels", "latent_dim", "in_features", "in_size", "num_classes")


@torch.no_grad()
def check_shapes(model: "EncoderModule", image: tuple[int, ...]) -> None:
    """Sends two black images through the parts of a model, without arithmetic where these allow it.

    Args:
        model: The model; neither its state nor that of the random numbers changes.
        image: Shape `(C, H, W)` of an image.

    Raises:
        ValueError: A part does not take what the one before it gives; both are named.
    """
    with in_evaluation(model), torch.random.fork_rng(devices=[]):  # a batch norm would learn from the images
        misfit = _misfit(model, image, torch.device("meta"))
        if misfit is not None:  # or a network that cannot do without arithmetic
            misfit = _misfit(model, image, model.device)
    if misfit is not None:
        raise ValueError(f"{misfit}: make the two agree")


def _misfit(model: "EncoderModule", image: tuple[int, ...], device: torch.device) -> str | None:
    """What is wrong, in words."""
    images = torch.zeros(2, *image, device=device).to(model.dtype)
    encoder = _describe(model, "encoder")
    try:
        code = _call(model.encoder, images)
    except Exception as error:  # whatever a network may raise
        return f"{encoder} does not take the data's images {image} ({_first_line(error)})"
    if not isinstance(code, Tensor):
        return None
    given, length = tuple(code.shape[1:]), getattr(model, "latent_dim", None)
    if length is not None and given != (length,):
        return f"{encoder} gives codes {given} for model.latent_dim={length}"
    for name in ("decoder", "auxiliary_decoder", "head"):
        part = getattr(model, name, None)
        if not isinstance(part, nn.Module) or isinstance(part, nn.Identity):
            continue
        described = _describe(model, name)
        try:
            output = _call(part, code)
        except Exception as error:
            return f"{described} does not take the codes {given} of {encoder} ({_first_line(error)})"
        classes = getattr(model, "num_classes", None)
        if name == "head" and output.shape[1:] != (classes,):
            return f"{described} gives {tuple(output.shape[1:])} for model.num_classes={classes}"
        if name != "head" and output.shape[1:2] != images.shape[1:2]:
            return f"{described} gives images {tuple(output.shape[1:])}, of other channels than the data's {image}"
    return None


def _call(part: nn.Module, inputs: Tensor) -> Any:
    if inputs.device.type != "meta":
        return part(inputs)
    state = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    return functional_call(part, {name: value.to("meta") for name, value in state.items()}, (inputs,))


def _describe(model: "EncoderModule", name: str) -> str:
    """A part as its option, with its class and the sizes that it was given."""
    stored = model.hparams.get(name)
    arguments = stored.get("init_args", {}) if isinstance(stored, dict) else {}
    sizes = [f"{key}={arguments[key]}" for key in SIZES if arguments.get(key) is not None]
    return f"model.{name} ({', '.join([type(getattr(model, name)).__name__, *sizes])})"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:160]
