"""How far images that a model draws or rebuilds are from real ones: FID and KID on the features of a named network."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from datamodules.cache import Rows
from lightning_modules import FrozenFeatures
from lightning_modules.autoencoder import resize_to
from lightning_modules.networks.tokens import probe_vectors
from lightning_modules.networks.weights import weights_hash

from .measures import BATCH, Images, to_float
from .runs import find_run, load_model

_SUBSET = 1000  # images in each of the hundred draws of KID, torchmetrics' own number


class Extractor(NamedTuple):
    """Whose features are compared; its name goes with every figure.

    Attributes:
        name: The name.
        features: Maps uint8 images `(B, C, H, W)` on the model's device to features `(B, D)`.
        standardized: The features have no known scale: they are standardised by those of the real images.
        weights: The beginning of the hash of its network's weights.
    """

    name: str
    features: Images
    standardized: bool = False
    weights: str = "not known"

    def of(self, images: Tensor) -> Tensor:
        """Features `(B, D)`, on the CPU, of images `(B, C, H, W)` in [0, 1], which are rounded to 8 bits.

        Raises:
            ValueError: It takes no such images.
        """
        try:
            return self.features((images * 255).round().byte()).cpu()
        except torch.OutOfMemoryError:  # a RuntimeError too, and no fault of the extractor
            raise
        except RuntimeError as error:
            shape = tuple(images.shape[1:])
            raise ValueError(f"the extractor {self.name} takes no images {shape}: give another one") from error


class _Given(nn.Identity):
    """Tells torchmetrics that it gets features and not images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def inception(device: torch.device) -> Extractor:
    """Inception with the weights of FID's authors, which torch-fidelity brings or fetches.

    Raises:
        ModuleNotFoundError: torch-fidelity is not installed.
        OSError: Its weights can neither be found nor fetched.
    """
    network: Any = FrechetInceptionDistance(2048).inception.to(device)
    return Extractor("Inception", lambda images: network(images.expand(-1, 3, -1, -1)), weights=_brief(network))


def _brief(network: nn.Module) -> str:
    return weights_hash(network)[:8]


def named_extractor(given: str, device: torch.device) -> Extractor:
    """The encoder of a run, or a layer of a network.

    Args:
        given: A run directory, a checkpoint inside one, or `NETWORK:LAYER[:WEIGHTS]`, with a network as
            `FrozenFeatures` takes it: `module:pkg.fn:LAYER` too.
        device: Where the images will be.

    Raises:
        FileNotFoundError: It is neither.
    """
    network, *rest = given.rsplit(":", 2)
    if network == "module":
        network, rest = f"{network}:{rest[0]}", rest[1:]
    encoder: nn.Module
    if Path(given).exists():
        run = find_run(given)
        name, encoder = run.name, load_model(run).encoder
    elif rest:
        layer, source = rest[0], (*rest[1:], "DEFAULT")[0]
        name, encoder = f"{network} {layer}", FrozenFeatures(network, layer, source)
    else:
        raise FileNotFoundError(f"no extractor {given}: give a run, a checkpoint, or NETWORK:LAYER[:WEIGHTS]")
    encoder = encoder.to(device).eval()

    def features(images: Tensor) -> Tensor:
        return probe_vectors(encoder(to_float(images, device)), encoder, most=1)

    weights = _brief(encoder)
    return Extractor(f"{name} ({weights})", features, standardized=True, weights=weights)


@torch.no_grad()
def measure_generation(
    sample: Callable[[int], Tensor], images: Tensor | Rows, extractor: Extractor, device: torch.device
) -> dict[str, Any]:
    """FID and KID between real images and as many drawn ones, both at the model's size and in 8 bits.

    Beside the FID stands its floor, that between two halves of the real images, which fewer images make larger.

    Args:
        sample: Draws a number of images `(B, C, h, w)` in [0, 1].
        images: The real ones, uint8 `(N, C, H, W)`.
        extractor: Whose features are compared.
        device: Where the model is.

    Raises:
        ValueError: The extractor takes no such images.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        real, fake, _ = _features(lambda batch: sample(len(batch)), images, extractor, device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
            kid = KernelInceptionDistance(_Given(real.shape[1]), subset_size=min(_SUBSET, len(images)))
        kid.update(real, real=True)
        kid.update(fake, real=False)
        figures = {"fid": _frechet_distance(real, fake), "kid": float(kid.compute()[0])}
        figures |= {"fid_floor": _frechet_distance(real[::2], real[1::2])} if len(real) >= 4 else {}
    return figures | {"images": len(images), "extractor": extractor.name}


@torch.no_grad()
def measure_rfid(rebuild: Images, images: Tensor | Rows, extractor: Extractor, device: torch.device) -> dict[str, Any]:
    """The Frechet distance between real images and their reconstructions, at the latter's size and in 8 bits.

    Args:
        rebuild: Maps images `(B, C, H, W)` in [0, 1] to their reconstructions `(B, C, h, w)`.
        images: The real ones, uint8 `(N, C, H, W)`.
        extractor: Whose features are compared.
        device: Where the model is.

    Returns:
        `rfid`; `rfid_floor`, the same between two halves of the real images, from four on, which fewer images make
        larger; `rfid_extractor`, with the number of images; and `rfid_protocol`, how it was measured.

    Raises:
        ValueError: The extractor takes no such images.
    """
    real, fake, (height, width) = _features(rebuild, images, extractor, device)
    weights = "" if extractor.weights in extractor.name else f" (weights {extractor.weights})"
    scaled = ", standardised by those of the real images" if extractor.standardized else ""
    return {
        "rfid": _frechet_distance(real, fake),
        "rfid_floor": _frechet_distance(real[::2], real[1::2]) if len(real) >= 4 else None,
        "rfid_extractor": f"{extractor.name}, {len(images)} images",
        "rfid_protocol": (
            f"Frechet distance of the features of {extractor.name}{weights}{scaled}, between"
            f" {len(images)} test images and their reconstructions, both at {height} x {width} in 8 bits; floor:"
            f" between halves of {len(real[::2])} and {len(real[1::2])} of these images"
        ),
    }


def _features(
    make: Images, images: Tensor | Rows, extractor: Extractor, device: torch.device
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Features `(N, D)` of uint8 images `(N, C, H, W)` and of what is made of them, and the size of both."""
    real: list[Tensor] = []
    fake: list[Tensor] = []
    size: tuple[int, ...] = ()
    for part in images.split(BATCH):
        target = to_float(part, device)
        made = make(target).float()
        real.append(extractor.of(resize_to(target, made)))
        fake.append(extractor.of(made))
        size = made.shape[-2:]
    theirs, ours = torch.cat(real), torch.cat(fake)
    if extractor.standardized:
        deviation, mean = torch.std_mean(theirs, dim=0)
        theirs, ours = ((part - mean) / deviation.clamp(min=1e-6) for part in (theirs, ours))
    return theirs, ours, size


def _frechet_distance(real: Tensor, fake: Tensor) -> float:
    metric = FrechetInceptionDistance(_Given(real.shape[1]))
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())
