"""The structural similarity of images, as scikit-image computes it."""

import torch
from torch import Tensor

from .networks.precision import full

SIDE, SIGMA = 11, 1.5  # of the Gaussian window, in pixels
PIECE = 2**22  # values that are compared at once: some twenty copies of them are held


def structural_similarity(preds: Tensor, target: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004, doi 10.1109/TIP.2003.819861): the mean over all windows that lie within the image.

    It is scikit-image's with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1`, without its
    border of 5 pixels; torchmetrics (1.9) averages over that border too, where the image is reflected. In an image of
    less than 11 pixels, the window is cut to the largest odd side that fits.

    Args:
        preds: Images `(B, C, H, W)` in [0, 1].
        target: What they are compared with.

    Returns:
        The similarities `(B,)`, at most 1, in float32 under mixed precision too.
    """
    count = max(1, PIECE // preds[0].numel())
    with torch.autocast(preds.device.type, enabled=False):  # which would spoil differences of squares
        pieces = zip(full(preds).split(count), full(target).split(count), strict=True)
        return torch.cat([_similarity(*piece) for piece in pieces])


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    # As two products with band matrices the windows cost a third of a convolution, and no TF32 rounds them.
    down, right = _windows(x.shape[-2], x).T, _windows(x.shape[-1], x)
    mean_x, mean_y, square_x, square_y, product = down @ torch.stack([x, y, x * x, y * y, x * y]) @ right
    brightness, contrast = 0.01**2, 0.03**2  # what keeps the two ratios finite in the dark and on flat ground
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    similarity = (2 * mean_x * mean_y + brightness) / (mean_x.square() + mean_y.square() + brightness)
    return (similarity * (2 * covariance + contrast) / (variances + contrast)).mean(dim=(1, 2, 3))


def _windows(length: int, like: Tensor) -> Tensor:
    """Gaussian weights `(length, windows)`, a column for each window that lies within `length` pixels."""
    reach = (min(SIDE, length) - 1) // 2
    pixels = torch.arange(length, device=like.device, dtype=like.dtype)
    offsets = pixels[:, None] - pixels[reach : length - reach]
    weights = torch.exp(-0.5 * (offsets / SIGMA) ** 2) * (offsets.abs() <= reach)
    return weights / weights.sum(dim=0)
