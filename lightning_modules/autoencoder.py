"""The autoencoder: an encoder and a decoder trained together on the squared error."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .base import Batch, EncoderModule, Split, StepOutput
from .metrics import mean_losses, reconstruction_metrics
from .networks.precision import full


def resize_to(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Resizes images `(B, C, H, W)` in [0, 1] to the size of a reconstruction `(B, C, h, w)`, unless that is theirs.

    Raises:
        ValueError: The numbers of images or channels differ, over which torch would broadcast with a mere warning.
    """
    if images.shape[:2] != reconstruction.shape[:2]:
        shapes = f"{tuple(reconstruction.shape)} for images {tuple(images.shape)}"
        raise ValueError(f"the decoder gives {shapes}: choose one with as many channels as the data")
    if images.shape == reconstruction.shape:
        return images
    return F.interpolate(images, reconstruction.shape[-2:], mode="bilinear", antialias=True)


class Autoencoder(EncoderModule):
    """Rebuilds images from their codes; the loss is the mean squared error over all pixels.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
        decoder: Network from codes to images `(B, C, h, w)` in [0, 1]; where its size differs from the data's,
            the target is the data's image resized to it.
        kwargs: How the encoder starts and what trains, see `EncoderModule`.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, **kwargs: Any) -> None:
        super().__init__(encoder, **kwargs)
        self.decoder = decoder
        self.train_metrics = mean_losses("train/")
        self.val_metrics = reconstruction_metrics("val/")
        self.test_metrics = reconstruction_metrics("test/")

    def forward(self, images: Tensor) -> Tensor:
        """Rebuilds images `(B, C, H, W)` in [0, 1] as `(B, C, h, w)` in [0, 1]."""
        return self.reconstruct(images)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Rebuilds images `(B, C, H, W)` in [0, 1] from their codes, as `(B, C, h, w)` in [0, 1]."""
        return self.decode(self.encode(images))

    def decode(self, code: Tensor) -> Tensor:
        """Maps codes `(B, ...)` to images `(B, C, h, w)` in [0, 1]."""
        images: Tensor = self.decoder(code)
        return full(images).contiguous()  # torchmetrics takes no other memory format, and bfloat16 would lose digits

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        code = self.read(batch)
        reconstruction = self.decode(code)
        target = resize_to(batch.images, reconstruction)
        loss, parts = self._loss(reconstruction, target)
        metrics = getattr(self, f"{split}_metrics")
        metrics.update(value=loss.detach(), weight=len(target), preds=reconstruction.detach(), target=target, **parts)
        return StepOutput(
            loss=loss, code=code, label=batch.labels, image=batch.images, reconstruction=reconstruction, target=target
        )

    def _loss(self, reconstruction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and those of its parts that are logged, by name and detached."""
        return F.mse_loss(reconstruction, target), {}

    def _predict(self, batch: Batch) -> dict[str, Tensor]:
        code = self.read(batch)
        return {"code": code, "reconstruction": self.decode(code), "label": batch.labels}
