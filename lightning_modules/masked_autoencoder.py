"""The masked autoencoder: a decoder rebuilds what the encoder was not shown."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from preimage.checks import check_range

from .autoencoder import Autoencoder, resize_to
from .base import Batch, Split, StepOutput
from .noise import noise_like


class MaskedAutoencoder(Autoencoder):
    """Rebuilds the patches of an image that are hidden from its encoder; the loss is their mean squared error.

    The idea is that of MAE (He et al. 2022, arXiv 2111.06377). Hidden patches show a learned one in their place, as in
    SimMIM (Xie et al. 2022, arXiv 2111.09886), so that the encoder may be any network. Errors in validation and test
    are those of whole images that are rebuilt from the patches that are left, always the same of an image; its code,
    `encode`, is that of the image without a mask.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
        decoder: Network from codes to images `(B, C, h, w)` in [0, 1].
        mask_ratio: Share of the patches that is hidden, in (0, 1).
        patch_size: Height and width of a patch, which divide those of the images.
        channels: Channels of the images.
        kwargs: A quantiser, how the encoder starts and what trains, see `Autoencoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        mask_ratio: float = 0.75,
        patch_size: int = 4,
        channels: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, decoder, **kwargs)
        check_range("model", "(0, 1)", mask_ratio=mask_ratio)
        check_range("model", "[1, inf)", patch_size=patch_size, channels=channels)
        if self.cache_codes:
            raise ValueError("model.mask_ratio hides other patches in every step: set model.cache_codes false")
        self.mask_ratio = mask_ratio
        self.patch_size = patch_size
        self.patch = nn.Parameter(torch.zeros(channels, patch_size, patch_size))

    def draw_mask(self, images: Tensor, fixed: bool = False) -> Tensor:
        """Draws what is hidden of images `(B, C, H, W)`: 1 there and else 0, `(B, 1, H, W)`.

        Args:
            images: The images.
            fixed: Whether the draw is that of the image, the same in any batch.
        """
        height, width = (side // self.patch_size for side in images.shape[-2:])
        if images.shape[-2:] != (height * self.patch_size, width * self.patch_size):
            sides = " x ".join(map(str, images.shape[-2:]))
            raise ValueError(
                f"model.patch_size={self.patch_size} does not divide images of {sides}: give one that does"
            )
        noise = noise_like(images.new_empty(len(images), height * width), 1, images if fixed else None)[0]
        hidden = noise.argsort(dim=1)[:, : max(1, round(self.mask_ratio * height * width))]
        mask = torch.zeros_like(noise).scatter(1, hidden, 1.0).view(-1, 1, height, width)
        return F.interpolate(mask, scale_factor=self.patch_size)

    def hide(self, images: Tensor, mask: Tensor) -> Tensor:
        """Puts the learned patch in place of what is hidden of images `(B, C, H, W)` by a mask `(B, 1, H, W)`."""
        height, width = (side // self.patch_size for side in images.shape[-2:])
        return torch.where(mask > 0, self.patch.to(images.dtype).repeat(1, height, width), images)

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        images = batch.images
        mask = self.draw_mask(images, fixed=split != "train")
        seen = self.hide(images, mask)
        code = self.encode(seen)
        reconstruction = self.decode(code)
        target = resize_to(images, reconstruction)
        weight = F.interpolate(mask, target.shape[-2:]).expand_as(target)
        loss = (weight * (reconstruction - target).square()).sum() / weight.sum()
        metrics = getattr(self, f"{split}_metrics")
        metrics.update(value=loss.detach(), weight=len(target), preds=reconstruction.detach(), target=target)
        if split != "train":
            code = self.encode(images)
        self._measure_rate(code, split)
        return StepOutput(
            loss=loss,
            code=code,
            label=batch.labels,
            image=images,
            input=seen.detach(),
            reconstruction=reconstruction,
            target=target,
        )
