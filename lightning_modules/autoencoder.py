"""The autoencoder: an encoder and a decoder trained together on the squared error."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from preimage.checks import check_range

from .base import Batch, EncoderModule, Split, StepOutput
from .metrics import MeanLoss, mean_losses, rate_metrics, reconstruction_metrics
from .networks.precision import full
from .networks.quantizers import Quantizer
from .networks.regularizers import CodeRegularizer


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
        quantizer: What makes of the encoder's numbers those that are stored, and that the decoder is given; how many of
            its levels are used is measured in validation and test, since a collapse on a few is what goes wrong.
        regularizer: What the codes cost beside the error: `L2` (RAE), `Contractive`, or `MMD` (WAE, InfoVAE).
        noise: Share of pixels that are set to 0 before the encoder in training, while the target stays the whole image
            (Vincent et al. 2008); 0 for none.
        kwargs: How the encoder starts and what trains, see `EncoderModule`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        quantizer: Quantizer | None = None,
        regularizer: CodeRegularizer | None = None,
        noise: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, **kwargs)
        check_range("model", "[0, 1)", noise=noise)
        if self.freeze_encoder and (regularizer is not None or noise):
            raise ValueError("model.regularizer and model.noise train an encoder: not with model.freeze_encoder true")
        self.regularizer, self.noise = regularizer, noise
        self.decoder = decoder
        self.quantizer = quantizer
        self.train_metrics = mean_losses("train/")
        self.val_metrics = reconstruction_metrics("val/")
        self.test_metrics = reconstruction_metrics("test/")
        self._penalized = regularizer is not None or (
            quantizer is not None and quantizer.commitment > 0 and not self.freeze_encoder
        )
        if self._penalized:
            self.train_metrics.add_metrics({"mse": MeanLoss("mse")})
            for metrics in (self.train_metrics, self.val_metrics, self.test_metrics):
                metrics.add_metrics({"regularizer": MeanLoss("regularizer")})
        self.test_rate = rate_metrics("test/", quantizer is not None)
        if quantizer is not None:
            self.val_rate = rate_metrics("val/", quantized=True)

    def forward(self, images: Tensor) -> Tensor:
        """Rebuilds images `(B, C, H, W)` in [0, 1] as `(B, C, h, w)` in [0, 1]."""
        return self.reconstruct(images)

    def encode(self, images: Tensor) -> Tensor:
        """Maps images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`, quantised where there is a quantiser."""
        return self.quantize(self.represent(images))

    def represent(self, images: Tensor) -> Tensor:
        """What is cached of images `(B, C, H, W)`: codes before a quantiser, which may learn."""
        return super().encode(images)

    def quantize(self, code: Tensor) -> Tensor:
        """Maps codes `(B, ...)` of the encoder to those that are stored."""
        return code if self.quantizer is None else self.quantizer(code)

    def bits_per_image(self, code: Tensor) -> float:
        """Bits that one of the codes `(B, ...)` takes: those of its quantiser.

        Without one it is 32 for each number, an upper bound.
        """
        return code[0].numel() * 32.0 if self.quantizer is None else self.quantizer.bits(code)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Rebuilds images `(B, C, H, W)` in [0, 1] from their codes, as `(B, C, h, w)` in [0, 1]."""
        return self.decode(self.encode(images))

    def decode(self, code: Tensor) -> Tensor:
        """Maps codes `(B, ...)` to images `(B, C, h, w)` in [0, 1]."""
        images: Tensor = self.decoder(code)
        return full(images).contiguous()  # torchmetrics takes no other memory format, and bfloat16 would lose digits

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        numbers = self.read(batch._replace(images=self._masked(batch.images)))
        code = self.quantize(numbers)
        reconstruction = self.decode(code)
        target = resize_to(batch.images, reconstruction)
        loss, parts = self._loss(reconstruction, target)
        if self._penalized:
            parts = {"mse": loss.detach()} | parts
            penalty = self._penalty(numbers, code, batch.images)
            loss, parts["regularizer"] = loss + penalty, penalty.detach()
        metrics = getattr(self, f"{split}_metrics")
        metrics.update(value=loss.detach(), weight=len(target), preds=reconstruction.detach(), target=target, **parts)
        self._measure_rate(code, split)
        return StepOutput(
            loss=loss, code=code, label=batch.labels, image=batch.images, reconstruction=reconstruction, target=target
        )

    def _loss(self, reconstruction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and those of its parts that are logged, by name and detached."""
        return F.mse_loss(reconstruction, target), {}

    def _masked(self, images: Tensor) -> Tensor:
        """Images without the pixels that training hides from the encoder."""
        if not (self.training and self.noise):
            return images
        return images * (torch.rand_like(images[:, :1]) >= self.noise)  # a pixel in all channels

    def _penalty(self, numbers: Tensor, code: Tensor, images: Tensor) -> Tensor:
        """What codes `(B, ...)` cost beside the error, from numbers `(B, ...)` before the quantiser."""
        penalty = numbers.new_zeros(())
        if self.regularizer is not None:
            penalty = self.regularizer(numbers, images, self.encoder, self.decoder)
        if self.quantizer is not None and self.quantizer.commitment and not self.freeze_encoder:
            penalty = penalty + self.quantizer.commitment * F.mse_loss(full(numbers), code.detach())
        return penalty

    def _measure_rate(self, code: Tensor, split: Split) -> None:
        """Adds codes `(B, ...)` to what is measured of their bits."""
        if split == "test" or (split == "val" and self.quantizer is not None):
            indices = {} if self.quantizer is None else {"indices": self.quantizer.indices(code)}
            bits = torch.tensor(self.bits_per_image(code), dtype=torch.float32)  # also in bf16-true
            getattr(self, f"{split}_rate").update(weight=len(code), bits=bits, **indices)

    def _predict(self, batch: Batch) -> dict[str, Tensor]:
        code = self.quantize(self.read(batch))
        return {"code": code, "reconstruction": self.decode(code), "label": batch.labels}
