"""The search of images by gradient descent at its best: with weights that are chosen for its encoder."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules import OptimizationInversion
from lightning_modules.inversion import at_common_size
from preimage.progress import Progress

from .measures import reconstruction_errors

_VARIATION = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_NORM = (0.1, 0.0, 1.0)
_FIRST, _THEN = 60, 150  # steps of a search for each weight of the total variation, and for the best three


def tuned_search(
    encoder: nn.Module, images: Tensor, image_size: int, device: torch.device, **kwargs: Any
) -> tuple[OptimizationInversion, list[dict[str, float]]]:
    """Chooses the weights of a search by the PSNR at 64 x 64: that of the total variation, and then that of the norm.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes; it is frozen.
        images: uint8 validation images `(N, C, H, W)`; a few are enough.
        image_size: Height and width of the images that are searched.
        device: Where it searches.
        kwargs: For `OptimizationInversion`.

    Returns:
        The search with the weights that are best, and what each that was tried came to, with its `steps`.
    """
    search = OptimizationInversion(encoder, image_size, channels=images.shape[1], **kwargs).eval().to(device)
    most, tried = search.steps, list[dict[str, float]]()

    @cache
    def psnr(variation: float, norm: float, steps: int) -> float:
        search.variation_weight, search.norm_weight, search.steps = variation, norm, min(steps, most)
        value = reconstruction_errors(search, images, device, at_common_size)["psnr"]
        weights = {"variation_weight": variation, "norm_weight": norm}
        tried.append(weights | {"steps": search.steps, "psnr_64": value})
        progress.update()
        return value

    progress = Progress(total=len(_VARIATION) + len(_NORM) + 2, desc="choosing weights of the search", unit="tries")
    best = sorted(_VARIATION, key=lambda weight: psnr(weight, _NORM[0], _FIRST))[-3:]
    variation = max(best, key=lambda weight: psnr(weight, _NORM[0], _THEN))
    norm = max(_NORM, key=lambda weight: psnr(variation, weight, _THEN))
    progress.close()
    search.variation_weight, search.norm_weight, search.steps = variation, norm, most
    return search, tried
