"""How far the images that a model draws are from real ones: FID and KID on the features of a named network."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

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
    """

    name: str
    features: Images
    standardized: bool = False

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
    return Extractor("Inception", lambda images: network(images.expand(-1, 3, -1, -1)))


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
        layer, weights = rest[0], (*rest[1:], "DEFAULT")[0]
        name, encoder = f"{network} {layer}", FrozenFeatures(network, layer, weights)
    else:
        raise FileNotFoundError(f"no extractor {given}: give a run, a checkpoint, or NETWORK:LAYER[:WEIGHTS]")
    encoder = encoder.to(device).eval()

    def features(images: Tensor) -> Tensor:
        return probe_vectors(encoder(to_float(images, device)), encoder, most=1)

    return Extractor(f"{name} ({weights_hash(encoder)[:8]})", features, standardized=True)


@torch.no_grad()
def measure_generation(
    sample: Callable[[int], Tensor], images: Tensor, extractor: Extractor, device: torch.device
) -> dict[str, Any]:
    """FID and KID between real images and as many drawn ones, both at the model's size and in 8 bits.

    Args:
        sample: Draws a number of images `(B, C, h, w)` in [0, 1].
        images: The real ones, uint8 `(N, C, H, W)`.
        extractor: Whose features are compared.
        device: Where the model is.

    Raises:
        ValueError: The extractor takes no such images.
    """
    real: list[Tensor] = []
    fake: list[Tensor] = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for part in images.split(BATCH):
            drawn = sample(len(part)).float()
            real.append(extractor.of(resize_to(to_float(part, device), drawn)))
            fake.append(extractor.of(drawn))
        compared = [torch.cat(real), torch.cat(fake)]
        if extractor.standardized:
            deviation, mean = torch.std_mean(compared[0], dim=0)
            compared = [(part - mean) / deviation.clamp(min=1e-6) for part in compared]
        network = _Given(real[0].shape[1])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
            fid, kid = (
                FrechetInceptionDistance(network),
                KernelInceptionDistance(network, subset_size=min(_SUBSET, len(images))),
            )
        for metric in (fid, kid):
            metric.update(compared[0], real=True)
            metric.update(compared[1], real=False)
        figures = {"fid": float(fid.compute()), "kid": float(kid.compute()[0])}
    return figures | {"images": len(images), "extractor": extractor.name}
