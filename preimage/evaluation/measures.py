"""Reconstruction errors, codes, speed and memory of a model."""

import re
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from datamodules import InMemoryDataModule
from datamodules.cache import Rows
from datamodules.code_cache import cache_codes
from lightning_modules.autoencoder import resize_to
from lightning_modules.base import EncoderModule
from lightning_modules.inversion import feature_errors
from lightning_modules.metrics import MeanLoss, NormalizedError, reconstruction_metrics
from lightning_modules.networks.tokens import MAP_VALUES
from lightning_modules.networks.weights import weights_hash
from lightning_modules.perceptual import Perceptual

from .probes import Codes

BATCH = 64  # one for all models, so that their memory and speed can be compared
_TIMED = 2048  # images

Images = Callable[[Tensor], Tensor]


def to_float(images: Tensor, device: torch.device) -> Tensor:
    """Maps uint8 images `(B, C, H, W)` to floats in [0, 1] on a device."""
    return images.to(device).float().div_(255)


def spread(images: Tensor | Rows, most: int) -> Tensor:
    """Indices of so many images at most, spread evenly over all."""
    return torch.linspace(0, len(images) - 1, min(most, len(images))).long()


@torch.no_grad()
def reconstruction_errors(
    rebuild: Images,
    images: Tensor | Rows,
    device: torch.device,
    resize: Images | None = None,
    lpips: Perceptual | None = None,
) -> dict[str, float]:
    """MSE, PSNR, SSIM and normalised error, and LPIPS where its network is given.

    Args:
        rebuild: Maps images `(B, C, H, W)` in [0, 1] to their reconstructions `(B, C, h, w)`.
        images: uint8 images `(N, C, H, W)`.
        device: Where it does so.
        resize: Brings both to the size at which they are compared, by default that of the reconstructions.
        lpips: The distance that is meant by `lpips`, on the device.
    """
    names = ["mse", "psnr", "ssim", "normalized_error", *(["lpips"] if lpips else [])]
    metrics = reconstruction_metrics("").to(device)
    metrics.add_metrics({"normalized_error": NormalizedError().to(device), "lpips": MeanLoss("lpips").to(device)})
    none = torch.zeros((), device=device)
    for part in images.split(BATCH):
        target = to_float(part, device)
        preds = rebuild(target)
        preds, target = (resize(preds), resize(target)) if resize else (preds, resize_to(target, preds))
        preds = preds.float().contiguous()
        distance = lpips(preds, target).mean() if lpips else none
        metrics.update(value=none, weight=len(target), preds=preds, target=target, lpips=distance)
    return {name: float(metrics[name].compute()) for name in names}


@torch.no_grad()
def feature_error(rebuild: Images, encode: Images, images: Tensor, device: torch.device) -> float:
    """Mean distance of the reconstruction's code from the image's, relative to the latter's norm.

    Args:
        rebuild: Maps images `(B, C, H, W)` in [0, 1] to their reconstructions `(B, C, h, w)`.
        encode: Maps images to codes `(B, ...)`.
        images: uint8 images `(N, C, H, W)`.
        device: Where it does so.
    """
    targets = (to_float(part, device) for part in images.split(BATCH))
    return float(torch.cat([feature_errors(encode, rebuild(batch), batch, encode(batch)) for batch in targets]).mean())


@torch.no_grad()
def encode_splits(
    model: EncoderModule, data: InMemoryDataModule, names: Iterable[str], device: torch.device
) -> dict[str, Codes]:
    """Codes for probes and labels, -1 where there is none, of all images of each of the named splits that has any.

    They are the model's `vectors`, kept in the data's `cache_dir`, so that probing them in another way encodes nothing.
    """

    def encode(images: Tensor) -> Tensor:
        return model.vectors(model.encode(to_float(images, device))).cpu()

    key = f"evaluate {type(model).__qualname__} {model.encoder} {weights_hash(model.encoder)} {MAP_VALUES}"
    splits = {name: getattr(data, f"{name}_set") for name in names}
    return {
        name: (cache_codes(split.images, encode, key, data.cache_dir, data.code_cache_limit_gb), split.labels)
        for name, split in splits.items()
        if len(split.images)
    }


def labelled(splits: dict[str, Codes]) -> dict[str, Codes]:
    """Those of the codes that have a label, of each split that has any."""
    known = {name: (codes[labels >= 0], labels[labels >= 0]) for name, (codes, labels) in splits.items()}
    return {name: part for name, part in known.items() if len(part[1])}


@torch.no_grad()
def measure_speed(run: Images, images: Tensor | Rows, device: torch.device) -> tuple[float, float]:
    """Images per second that go through `run`, in batches of 64, and the peak memory meanwhile in gigabytes.

    On a GPU the memory is what torch has allocated there; elsewhere it is all that the process occupies, the
    interpreter and the data set included.
    """

    def go(batches: Iterable[Tensor]) -> None:
        for batch in batches:
            run(to_float(batch, device))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    batches = images[:_TIMED].split(BATCH)
    go(batches[:1])  # the first batch sets up what the others find
    _reset_peak(device)
    start = time.perf_counter()
    go(batches)
    seconds = time.perf_counter() - start
    return sum(map(len, batches)) / seconds, _peak(device) / 1e9


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew


def _peak(device: torch.device) -> int:
    """Bytes at the most since the reset; since the start of the process where Linux's files are missing."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists() and (peak := re.search(r"VmHWM:\s*(\d+)", status.read_text())):
        return 1024 * int(peak[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # bytes on macOS, kilobytes elsewhere
