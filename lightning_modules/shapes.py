"""Whether a model fits its data, and its parts one another, asked before the first batch is there."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.func import functional_call

from .networks.modes import in_evaluation

if TYPE_CHECKING:
    from .base import EncoderModule

#: Arguments of networks by which they fit or do not.
_SIZES = (
    "image_size",
    "in_channels",
    "out_channels",
    "latent_dim",
    "in_features",
    "features",
    "in_size",
    "num_classes",
)
_AGREE = "make the two agree"


def check_classes(model: "EncoderModule", data: Any, stage: str) -> None:
    """Compares the classes with the data's, before a label without a logit, or none at all, ends the run.

    Args:
        model: The model.
        data: The data module, or None.
        stage: The command, whose splits are looked through for classes without an image; empty before there are any.

    Raises:
        ValueError: The data has other classes than the model, or none for one that needs them.
    """
    names = getattr(data, "class_names", None)
    if model.num_classes is None or names is None or (stage == "predict" and not names):
        return
    if not names:
        name = type(model).__name__
        raise ValueError(f"{name} needs labels, and the data has none: give it some, or choose another model")
    if len(names) != model.num_classes:
        raise ValueError(
            f"the data has {len(names)} classes, model.num_classes={model.num_classes}: give"
            f" --model.num_classes {len(names)}"
        )
    for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ()):
        labels: Tensor | None = getattr(getattr(data, f"{split}_set", None), "labels", None)
        if labels is None or not (labels >= 0).any():
            continue
        counts = torch.bincount(labels[labels >= 0], minlength=model.num_classes)
        if absent := [names[label] for label in (counts == 0).nonzero()[:, 0].tolist()]:
            of = f"{len(absent)} of {model.num_classes} classes, as {', '.join(absent[:3])}"
            rank_zero_warn(f"the {split} split has no image of {of}: what is measured of every class is NaN")


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
        with suppress(ValueError):  # which a network that cannot do without arithmetic may cause too
            _send(model, image, torch.device("meta"))
            return
        _send(model, image, model.device)


def _send(model: "EncoderModule", image: tuple[int, ...], device: torch.device) -> None:
    images = torch.zeros(2, *image, device=device).to(model.dtype)
    encoder = _describe(model, "encoder")
    code = _call(model.encoder, images, f"{encoder} does not take the data's images {image}")
    if not isinstance(code, Tensor):
        return
    given, length = tuple(code.shape[1:]), getattr(model, "latent_dim", None)
    if length is not None and given != (length,):
        raise ValueError(f"{encoder} gives codes {given} for model.latent_dim={length}: {_AGREE}")
    if (quantizer := getattr(model, "quantizer", None)) is not None:
        described = _describe(model, "quantizer")
        code = _call(quantizer, code, f"{described} does not take the codes {given} of {encoder}")
        encoder, given = f"{encoder} and {described}", tuple(code.shape[1:])
    to_vectors = _AGREE
    if len(given) > 1 and hasattr(model.encoder, "tokens"):
        to_vectors = "a linear head reads vectors, which --model.encoder.tokens mean and some other layers give"
    for name in ("decoder", "auxiliary_decoder", "head"):
        part = getattr(model, name, None)
        if not isinstance(part, nn.Module) or isinstance(part, nn.Identity):
            continue
        described = _describe(model, name)
        cure = to_vectors if name == "head" else _AGREE
        output = _call(part, code, f"{described} does not take the codes {given} of {encoder}", cure)
        if not isinstance(output, Tensor):
            continue
        shape, classes = tuple(output.shape[1:]), getattr(model, "num_classes", None)
        if name == "head" and shape != (classes,):
            raise ValueError(f"{described} gives {shape} for model.num_classes={classes}: {cure}")
        if name != "head" and shape[:1] != image[:1]:
            raise ValueError(f"{described} gives images {shape}, of other channels than the data's {image}")


def _call(part: nn.Module, inputs: Tensor, misfit: str, cure: str = _AGREE) -> Any:
    """What a part makes of its inputs; on the meta device with weights there, and else as it is."""
    try:
        if not inputs.is_meta:
            return part(inputs)
        state = {**dict(part.named_parameters()), **dict(part.named_buffers())}
        return functional_call(part, {name: value.to("meta") for name, value in state.items()}, (inputs,))
    except Exception as error:  # whatever a network may raise
        reason = str(error).strip().split("\n")[0][:160]
        mend = "" if isinstance(error, ValueError) else f": {cure}"  # ours say what to do
        raise ValueError(f"{misfit} ({reason}){mend}") from error


def _describe(model: "EncoderModule", name: str) -> str:
    """A part as its option, with its class and the sizes that it was given."""
    stored = model.hparams.get(name)
    arguments = stored.get("init_args", {}) if isinstance(stored, dict) else {}
    sizes = [f"{key}={arguments[key]}" for key in _SIZES if arguments.get(key) is not None]
    return f"model.{name} ({', '.join([type(getattr(model, name)).__name__, *sizes])})"
