"""The inversion of a representation: what of an image can be rebuilt from a frozen encoder's code."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torchmetrics import MetricCollection

from preimage.checks import check_range

from .autoencoder import Autoencoder, resize_to
from .base import Batch, Split, StepOutput
from .metrics import MeanLoss, NormalizedError, reconstruction_metrics
from .networks.precision import full
from .perceptual import Perceptual

COMMON_SIZE = 64  # at which reconstructions of any size are compared
_STANDARDIZE_BY = 256  # training images that the codes' mean and standard deviation are taken from
_AVERAGED = 0.05  # weight of the latest step in the average of a search
# A search ends where for so many steps nothing was better than the best by such a share.
_PATIENCE, _TOLERANCE = 500, 1e-3


class Inversion(Autoencoder):
    """Learns a decoder for an encoder that stays as it is (Dosovitskiy and Brox 2016, arXiv 1506.02753).

    Under the squared error the decoder's answer to a code is the mean of all images that share it, so what is sharp in
    the reconstruction is what the code keeps. The test adds the paper's normalised error, the distance of the
    reconstruction's code from the image's (`feature_error`, relative to the latter's norm), and all errors at the
    common size of 64 x 64 (`*_64`), where decoders of any size can be compared.

    Two more terms make reconstructions look like images (Dosovitskiy and Brox 2016b, arXiv 1602.02644). Both are off
    by default, since only the squared error gives the mean of what a code leaves open: under the others the decoder
    adds what is likely. Each is logged by its name, and `loss` is their weighted sum in every split. A discriminator
    moves, so that its part cannot be compared between epochs: choose checkpoints by `val/mse` or `val/perceptual` then.
    It learns in the decoder's backward pass and optimiser, which keeps clipping, accumulation, precision and resuming
    as they are; the price is that the two share the learning rate and the norm that is clipped, and step at once
    instead of in turn.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`; it is frozen.
        decoder: Network from codes to images `(B, C, h, w)` in [0, 1].
        encoder_checkpoint: The run that trained the encoder, or a checkpoint of it; null for an encoder that brings its
            weights along.
        standardize: Give the decoder, or the quantiser before it, codes of mean 0 and standard deviation 1 over all
            values, as measured on training images; features after a ReLU are neither, and a decoder learns from them
            far more slowly.
        perceptual: Distance of reconstruction and image in a frozen network's features: `LPIPS` or `FeatureDistance`.
        perceptual_weight: Its weight beside the squared error.
        adversarial: Discriminator, such as `PatchDiscriminator`: network from images `(B, C, h, w)` in [0, 1] to logits
            of any shape, high where it takes them for real. Both sides have the non-saturating loss (Goodfellow et al.
            2014, arXiv 1406.2661).
        adversarial_weight: Weight of the decoder's side beside the squared error.
        kwargs: What trains the decoder, see `EncoderModule`.
    """

    code_mean: Tensor
    code_std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        encoder_checkpoint: str | None,
        standardize: bool = False,
        perceptual: Perceptual | None = None,
        perceptual_weight: float = 0.1,
        adversarial: nn.Module | None = None,
        adversarial_weight: float = 0.001,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, decoder, encoder_checkpoint=encoder_checkpoint, freeze_encoder=True, **kwargs)
        self.hparams.pop("freeze_encoder", None)  # given here, and no argument of this class
        check_range("model", "(0, inf)", perceptual_weight=perceptual_weight, adversarial_weight=adversarial_weight)
        self.standardize = standardize
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.adversarial, self.adversarial_weight = adversarial, adversarial_weight
        terms = [name for name in ("perceptual", "adversarial") if getattr(self, name) is not None]
        for metrics in (self.train_metrics, self.val_metrics, self.test_metrics):
            metrics.add_metrics({name: MeanLoss(name) for name in terms})
        if terms:
            self.train_metrics.add_metrics({"mse": MeanLoss("mse")})
        if adversarial is not None:
            self.discriminator_metrics = MetricCollection({"discriminator": MeanLoss()}, prefix="train/")
        self.register_buffer("code_mean", torch.zeros(()))
        self.register_buffer("code_std", torch.ones(()))
        self.test_metrics.add_metrics({"normalized_error": NormalizedError()})
        self.feature_metrics = MetricCollection({"feature_error": MeanLoss("feature_error")}, prefix="test/")
        self.common_metrics = reconstruction_metrics("test/", f"_{COMMON_SIZE}")
        self.common_metrics.add_metrics({"normalized_error": NormalizedError()})

    def decode(self, code: Tensor) -> Tensor:
        """Maps codes `(B, ...)` to images `(B, C, h, w)` in [0, 1]."""
        return super().decode(self._standardized(code) if self.quantizer is None else code)

    def quantize(self, code: Tensor) -> Tensor:
        """Maps codes `(B, ...)` of the encoder to those that are stored."""
        return code if self.quantizer is None else super().quantize(self._standardized(code))

    def _standardized(self, code: Tensor) -> Tensor:
        return (code - self.code_mean) / self.code_std if self.standardize else code

    def on_fit_start(self) -> None:
        """Caches the codes if asked to, and measures what they are standardised by."""
        super().on_fit_start()
        if self.standardize:
            self._measure_codes()

    def _measure_codes(self) -> None:
        # The same images on every process, so that all decoders see the same codes.
        images: Any = getattr(self._data(), "train_set", None)
        if not hasattr(images, "__getitems__"):
            raise ValueError("model.standardize needs one of our data modules: set it to false for other data")
        index = torch.linspace(0, len(images) - 1, min(_STANDARDIZE_BY, len(images))).long()
        count, total, squares = 0, 0.0, 0.0  # one layer may have a gigabyte of values
        for part in index.split(16):
            batch = Batch(*images.__getitems__(part.tolist()))
            values = (self._encode(batch.images) if batch.codes is None else batch.codes).double()
            count += values.numel()
            total += float(values.sum())
            squares += float(values.square().sum())
        self.code_mean.fill_(total / count)
        self.code_std.fill_(max(squares / count - (total / count) ** 2, 1e-12) ** 0.5)

    def _loss(self, reconstruction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _ = super()._loss(reconstruction, target)
        parts = {"mse": loss.detach()}
        if self.perceptual is not None:
            distance = self.perceptual(reconstruction, target).mean()
            loss, parts["perceptual"] = loss + self.perceptual_weight * distance, distance.detach()
        if self.adversarial is not None:
            # Of the discriminator's own parameters only `_discriminate` makes gradients.
            fixed = {name: parameter.detach() for name, parameter in self.adversarial.named_parameters()}
            doubt = F.softplus(-full(functional_call(self.adversarial, fixed, (reconstruction,)))).mean()
            loss, parts["adversarial"] = loss + self.adversarial_weight * doubt, doubt.detach()
        return loss, parts

    def _discriminate(self, network: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
        """What the discriminator minimises, which is no part of the logged loss."""
        loss = F.softplus(full(network(fake.detach()))).mean() + F.softplus(-full(network(real))).mean()
        self.discriminator_metrics.update(weight=len(real), value=loss.detach())
        return loss

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        outputs = super()._step(batch, split)
        if split == "train" and self.adversarial is not None:
            outputs["loss"] = outputs["loss"] + self._discriminate(
                self.adversarial, outputs["reconstruction"], outputs["target"]
            )
        if split == "test":
            images = batch.images
            code = outputs["code"] if self.quantizer is None else self.read(batch)
            errors = feature_errors(self.represent, outputs["reconstruction"], images, code)
            self.feature_metrics.update(weight=len(errors), feature_error=errors.mean())
            # Held against the image itself: the target of a smaller decoder has lost what that cannot draw.
            preds, target = at_common_size(outputs["reconstruction"].detach()), at_common_size(images)
            loss = F.mse_loss(preds, target)
            self.common_metrics.update(value=loss, weight=len(target), preds=preds, target=target)
        return outputs


def feature_errors(encode: Callable[[Tensor], Tensor], reconstruction: Tensor, images: Tensor, code: Tensor) -> Tensor:
    """Distance `(B,)` of the code of each reconstruction from the image's, relative to the latter's norm.

    Args:
        encode: Maps images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`.
        reconstruction: Images `(B, C, h, w)` in [0, 1].
        images: What they are reconstructions of, `(B, C, H, W)`; the encoder looks at both in this size.
        code: Codes of the images.
    """
    again, wanted = (full(codes.flatten(1)) for codes in (encode(resize_to(reconstruction, images)), code))
    return (again - wanted).norm(dim=1) / wanted.norm(dim=1)


def at_common_size(images: Tensor) -> Tensor:
    """Resizes images `(B, C, h, w)` in [0, 1] to `(B, C, 64, 64)`."""
    if images.shape[-2:] == (COMMON_SIZE, COMMON_SIZE):
        return images
    return F.interpolate(images, (COMMON_SIZE, COMMON_SIZE), mode="bilinear", antialias=True).clamp(0, 1)


class OptimizationInversion(Inversion):
    """Searches an image with a given code by gradient descent, with no training (Mahendran and Vedaldi 2015).

    It minimises the squared distance of the codes, relative to the given one, plus the total variation of the image and
    the sixth power of its distance from gray (arXiv 1412.0035; Adam takes the place of momentum), until a batch's sum
    of this has not improved by a thousandth for 500 steps; where it is better, the average of the latest steps takes
    the place of the last. There is nothing to `fit`: `preimage test` measures it, and
    the reconstructions are images in [0, 1] as those of a decoder. The best weights are other ones for each layer:
    `tuned_search` chooses them on validation images.

    Args:
        encoder: Network from images `(B, C, H, W)` in [0, 1] to codes `(B, ...)`; it is frozen.
        image_size: Height and width of the image that is searched.
        channels: Channels of the image.
        steps: Steps of gradient descent at the most.
        lr: Size of a step of Adam, for images in [0, 1].
        variation_weight: Weight of the total variation: the sum of squared differences of neighbours per pixel.
        norm_weight: Weight of the mean of `(2 x - 1) ** 6`, which keeps pixels from the ends of their range.
        encoder_checkpoint: The run that trained the encoder, or a checkpoint of it; null for an encoder that brings its
            weights along.
        kwargs: See `EncoderModule`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        image_size: int = 64,
        channels: int = 3,
        steps: int = 1500,
        lr: float = 0.05,
        variation_weight: float = 10.0,
        norm_weight: float = 0.1,
        encoder_checkpoint: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, nn.Identity(), encoder_checkpoint, **kwargs)
        if self.quantizer is not None:
            raise ValueError("model.quantizer: a search for an image reads no quantised code; choose Inversion")
        check_range("model", "[1, inf)", image_size=image_size, channels=channels, steps=steps)
        check_range("model", "(0, inf)", lr=lr)
        check_range("model", "[0, inf)", variation_weight=variation_weight, norm_weight=norm_weight)
        self.size = (channels, image_size, image_size)
        self.steps = steps
        self.lr = lr
        self.variation_weight = variation_weight
        self.norm_weight = norm_weight

    def setup(self, stage: str) -> None:
        """Loads the encoder's weights at every stage, since no `fit` ever brings them into a checkpoint."""
        super().setup("fit")

    def decode(self, code: Tensor) -> Tensor:
        """Searches images `(B, C, h, w)` in [0, 1] with codes `(B, ...)`."""
        with torch.inference_mode(False), torch.enable_grad():
            given = full(code.detach().clone().flatten(1))
            generator = torch.Generator(given.device).manual_seed(0)
            noise = torch.randn(len(given), *self.size, device=given.device, generator=generator)
            images = (0.5 + 0.01 * noise).requires_grad_()
            optimizer = torch.optim.Adam([images], lr=self.lr)
            average = images.detach().clone()
            least, latest = math.inf, 0
            for step in range(self.steps):
                optimizer.zero_grad()
                objective = self._objective(images, given).sum()
                objective.backward()
                optimizer.step()
                images.data.clamp_(0, 1)
                average.lerp_(images.detach(), _AVERAGED)
                # Adam's unrest keeps the sum flat for a while where the image still gets better: hence the patience.
                if objective < (1 - _TOLERANCE) * least:
                    least, latest = objective.item(), step
                elif step - latest == _PATIENCE:
                    break
            # The average is freer of Adam's unrest, but lags behind in a short search.
            with torch.no_grad():
                better = self._objective(average, given) < self._objective(images, given)
            return torch.where(better[:, None, None, None], average, images.detach())

    def _objective(self, images: Tensor, given: Tensor) -> Tensor:
        """What is minimised, for each image `(B,)`."""
        distance = (full(self.encoder(images).flatten(1)) - given).square().sum(dim=1) / given.square().sum(dim=1)
        return distance + self.variation_weight * total_variation(images) + self.norm_weight * norm(images)

    def configure_optimizers(self) -> Any:
        """There is nothing to train.

        Raises:
            ValueError: Always.
        """
        raise ValueError("OptimizationInversion has nothing to fit: run preimage test")


def total_variation(images: Tensor) -> Tensor:
    """Sum of the squared differences of vertical and horizontal neighbours, per pixel, of images `(B, C, H, W)`."""
    down, right = images.diff(dim=2).square().sum(dim=(1, 2, 3)), images.diff(dim=3).square().sum(dim=(1, 2, 3))
    return (down + right) / images[0].numel()


def norm(images: Tensor) -> Tensor:
    """Mean sixth power of the distance from gray, 1 at the ends of [0, 1], of images `(B, C, H, W)`."""
    return (2 * images - 1).pow(6).mean(dim=(1, 2, 3))
