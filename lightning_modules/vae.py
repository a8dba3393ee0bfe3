"""The variational autoencoder."""

import math
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from preimage.checks import check_range

from .autoencoder import Autoencoder, resize_to
from .base import Batch, Split, StepOutput
from .metrics import ActiveUnits, MeanLoss, mean_losses
from .networks.decoder import SigmoidDecoder
from .networks.gaussian import GaussianEncoder
from .networks.precision import full
from .networks.priors import VampPrior, decompose_kl
from .noise import fixed_noise, noise_like

CHUNK = 10  # codes per image that are decoded at once, of the hundreds of an estimate
_BOUNDS = ("elbo", "kl", "reconstruction")
_TERMS = ("mutual_information", "total_correlation", "dimension_kl")


class VAE(Autoencoder):
    """Maximises a lower bound on the log-likelihood of images (Kingma and Welling 2014, arXiv 1312.6114).

    All bounds are in nats per image: summed over pixels and latent dimensions, averaged over samples and then images.
    The test adds the rate of bits-back coding (Hinton and van Camp 1993; Townsend et al. 2019, arXiv 1901.04866),
    `bits_per_image`: the KL divergence in bits. It pays for a drawn code, whose squared error is `mse_drawn`, and not
    for the mean, whose error is `mse`.

    Args:
        encoder: A `GaussianEncoder`: network from images `(B, C, H, W)` to mean and log-variance of codes.
        decoder: A `SigmoidDecoder`, or other layers from codes `(B, latent_dim)` to images `(B, C, h, w)` in [0, 1]
            with a sigmoid of logits as the last one.
        latent_dim: Length of the code.
        likelihood: Bernoulli pixels, from logits, or Gaussian ones of one variance for all.
        variance: Variance of a Gaussian pixel, for images in [0, 1].
        learn_variance: Learn the variance, starting from `variance` (Rybkin et al. 2021, arXiv 2006.13202).
        beta: Weight of the KL divergence in the loss (Higgins et al. 2017); 1 for the bound itself.
        warmup_epochs: Epochs over which the weight rises linearly from 0 to `beta`, in training only.
        cycle_epochs: Let the weight rise anew every so many epochs, of which the last always has the full weight
            (Fu et al. 2019, arXiv 1903.10145); 0 for once.
        free_bits: Nats per latent dimension, on average over the batch, below which the KL divergence costs nothing
            (Kingma et al. 2016, arXiv 1606.04934).
        num_samples: Codes drawn per image; the loss is averaged over them, not the reconstruction.
        importance_weighted: Use the samples for the tighter bound of Burda et al. 2016 (arXiv 1509.00519).
        num_importance_samples: Codes per image for an estimate of log p(x) at the test, `test/log_likelihood`, of
            which published figures take 200 to 5000; 0 for no estimate. Beside it stands how many samples of one
            weight would be as good, `test/effective_samples`.
        tc_weight: Weight of the total correlation, one of three terms of the KL divergence (beta-TC-VAE, Chen et al.
            2018, arXiv 1802.04942): the loss has `KL + (tc_weight - 1) TC`. Other than 1, all three are logged.
        prior: A learned prior in place of the standard normal, from which the KL divergence is then estimated.
        kwargs: How the encoder starts and what trains, see `EncoderModule`.
    """

    encoder: GaussianEncoder
    decoder: SigmoidDecoder
    pixel_log_variance: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        variance: float = 0.01,
        learn_variance: bool = False,
        beta: float = 1.0,
        warmup_epochs: int = 0,
        cycle_epochs: int = 0,
        free_bits: float = 0.0,
        num_samples: int = 1,
        importance_weighted: bool = False,
        num_importance_samples: int = 0,
        tc_weight: float = 1.0,
        prior: VampPrior | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoder, decoder, **kwargs)
        if not isinstance(encoder, GaussianEncoder):
            raise ValueError(
                f"model.encoder must be a GaussianEncoder, with heads for two, not {type(encoder).__name__}"
            )
        if self.quantizer is not None:
            raise ValueError("model.quantizer: a VAE draws its codes, whose rate is the KL; choose Autoencoder")
        if not isinstance(decoder, SigmoidDecoder):
            self.decoder = SigmoidDecoder(*decoder.children())
        check_range("model", "[1, inf)", latent_dim=latent_dim, num_samples=num_samples)
        check_range("model", "(0, inf)", variance=variance)
        check_range("model", "[0, inf)", num_importance_samples=num_importance_samples)
        _check_weights(beta, warmup_epochs, cycle_epochs, free_bits, importance_weighted)
        check_range("model", "[0, inf)", tc_weight=tc_weight)
        if tc_weight != 1 and (importance_weighted or prior is not None):
            raise ValueError("model.tc_weight has no importance_weighted or prior: set it to 1, or leave those out")
        if prior is not None and free_bits:
            raise ValueError("model.free_bits are of each latent dimension, which model.prior has not: set it to 0")
        if learn_variance and likelihood != "gaussian":
            raise ValueError(f"model.learn_variance needs model.likelihood gaussian, not {likelihood}")
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        log_variance = torch.tensor(math.log(variance))
        if learn_variance:
            self.pixel_log_variance = nn.Parameter(log_variance)
        else:
            self.register_buffer("pixel_log_variance", log_variance, persistent=False)
        self.beta = beta
        self.warmup_epochs = warmup_epochs
        self.cycle_epochs = cycle_epochs
        self.free_bits = free_bits
        self.num_samples = num_samples
        self.importance_weighted = importance_weighted
        self.num_importance_samples = num_importance_samples
        self.tc_weight, self.prior = tc_weight, prior
        names = [*_BOUNDS, *(_TERMS if tc_weight != 1 else ()), *(["regularizer"] if self.regularizer else [])]
        self.train_metrics = mean_losses("train/", *names)
        for metrics in (self.val_metrics, self.test_metrics):
            bounds = {name: MeanLoss(name) for name in names}
            metrics.add_metrics({**bounds, "active_units": ActiveUnits(latent_dim)})
        self.test_metrics.add_metrics({"mse_drawn": MeanLoss("mse_drawn")})
        if num_importance_samples:
            self.test_metrics.add_metrics({name: MeanLoss(name) for name in ("log_likelihood", "effective_samples")})

    def on_fit_start(self) -> None:
        """Says so where the training is too short for the warm-up."""
        super().on_fit_start()
        epochs = self.trainer.max_epochs or -1
        if not self.cycle_epochs and 0 < epochs <= self.warmup_epochs:
            rank_zero_warn(
                f"model.warmup_epochs={self.warmup_epochs} is not over after trainer.max_epochs={epochs}: the KL"
                " divergence never has its full weight"
            )

    def sample(self, count: int) -> Tensor:
        """Draws images `(count, C, H, W)` in [0, 1] from the prior."""
        if self.prior is not None:
            return self.decode(self.prior.sample(count, self.encoder))
        return self.decode(torch.randn(count, self.latent_dim, device=self.device))

    def kl_weight(self) -> float:
        """The weight of the KL divergence in this epoch: it warms up in training, and is `beta` in evaluation."""
        if self.training and self.warmup_epochs:
            epoch, rise = self.current_epoch, self.warmup_epochs
            if self.cycle_epochs:
                epoch, rise = epoch % self.cycle_epochs, min(rise, self.cycle_epochs - 1)
            return self.beta * min(1.0, epoch / rise)
        return self.beta

    def log_likelihood(self, images: Tensor, num_samples: int) -> Tensor:
        """Estimates log p(x) of images `(B, C, H, W)` in [0, 1], in nats `(B,)` (Burda et al. 2016, arXiv 1509.00519).

        It samples codes from the encoder: a lower bound in expectation, and the tighter the more samples.
        """
        return self._importance(images, num_samples)[0]

    def _importance(self, images: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
        """The estimate of log p(x), and its effective sample size `(sum w)^2 / sum w^2` (Kong 1992), each `(B,)`."""
        mean, log_variance = self.encoder.posterior(images)
        squares = torch.full_like(mean[:, 0], -math.inf)
        total = torch.full_like(mean[:, 0], -math.inf)
        for start in range(0, num_samples, CHUNK):
            noise = fixed_noise(images, min(CHUNK, num_samples - start), self.latent_dim, start)
            codes = mean + (0.5 * log_variance).exp() * noise
            weights = self._log_ratio(codes, noise, log_variance) - self._nll(codes, images)
            total = torch.logaddexp(total, weights.logsumexp(dim=0))
            squares = torch.logaddexp(squares, (2 * weights).logsumexp(dim=0))
        return total - math.log(num_samples), (2 * total - squares).exp()

    def _step(self, batch: Batch, split: Split) -> StepOutput:
        images = batch.images
        mean, log_variance = self.encoder.posterior(self._masked(images))
        noise = noise_like(mean, self.num_samples, fixed_by=None if split == "train" else images)
        codes = mean + (0.5 * log_variance).exp() * noise  # (S, B, D)
        nll = self._nll(codes, images)
        if self.prior is None:
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)  # from the standard normal, (B, D)
        else:
            kl = -self._log_ratio(codes, noise, log_variance).mean(dim=0)[:, None]  # (B, 1)
        bounds = {"reconstruction": nll.mean(), "kl": kl.sum(dim=1).mean()}
        if self.importance_weighted:
            weights = self._log_ratio(codes, noise, log_variance) - nll
            bounds["elbo"] = (weights.logsumexp(dim=0) - math.log(self.num_samples)).mean()
            loss = -bounds["elbo"]
        else:
            bounds["elbo"] = -bounds["reconstruction"] - bounds["kl"]
            loss = bounds["reconstruction"] + self.kl_weight() * kl.mean(dim=0).clamp(min=self.free_bits).sum()
        if self.tc_weight != 1:
            bounds |= zip(_TERMS, decompose_kl(codes[0], mean, log_variance), strict=True)
            loss = loss + self.kl_weight() * (self.tc_weight - 1) * bounds["total_correlation"]
        if self.regularizer is not None:
            bounds["regularizer"] = self._penalty(codes[0], codes[0], images)
            loss = loss + bounds["regularizer"]
        outputs = StepOutput(loss=loss, code=mean, label=batch.labels, image=images)
        values = {name: value.detach() for name, value in bounds.items()} | {"value": loss.detach()}
        if split != "train":
            outputs["reconstruction"] = values["preds"] = self.decode(mean)
            outputs["target"] = values["target"] = resize_to(images, values["preds"])
            values["mean"] = mean
        if split == "test":
            values["mse_drawn"] = F.mse_loss(self.decode(codes[0]), outputs["target"])
            self.test_rate.update(weight=len(images), bits=values["kl"] / math.log(2))
        if split == "test" and self.num_importance_samples:
            estimates = self._importance(images, self.num_importance_samples)
            values["log_likelihood"], values["effective_samples"] = (estimate.mean() for estimate in estimates)
        getattr(self, f"{split}_metrics").update(weight=len(images), **values)
        return outputs

    def _log_ratio(self, codes: Tensor, noise: Tensor, log_variance: Tensor) -> Tensor:
        """`log p(z) - log q(z | x)` of codes `(S, B, D)`, drawn by noise of that shape, in nats `(S, B)`."""
        if self.prior is None:
            return 0.5 * (noise.square() + log_variance - codes.square()).sum(dim=-1)
        posterior = -0.5 * (noise.square() + log_variance + math.log(2 * math.pi)).sum(dim=-1)
        return self.prior.log_prob(codes, self.encoder) - posterior

    def _nll(self, codes: Tensor, images: Tensor) -> Tensor:
        """Negative log-likelihood `(S, B)` of images `(B, C, H, W)` given codes `(S, B, D)`."""
        logits = full(self.decoder.logits(codes.flatten(0, 1)))
        target = resize_to(images.repeat(len(codes), 1, 1, 1), logits)
        if self.likelihood == "bernoulli":
            nll = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(dim=(1, 2, 3))
        else:  # a fifth of the time that torch.distributions takes for each pixel's density
            log_variance = full(self.pixel_log_variance)
            squares = (logits.sigmoid() - target).square().sum(dim=(1, 2, 3)) * (-log_variance).exp()
            nll = 0.5 * (squares + (log_variance + math.log(2 * math.pi)) * target[0].numel())
        return nll.view(len(codes), len(images))

    def _predict(self, batch: Batch) -> dict[str, Tensor]:
        mean, log_variance = self.encoder.posterior(batch.images)
        return {"code": mean, "log_variance": log_variance, "label": batch.labels}


def _check_weights(
    beta: float, warmup_epochs: int, cycle_epochs: int, free_bits: float, importance_weighted: bool
) -> None:
    check_range("model", "[0, inf)", beta=beta, free_bits=free_bits)
    check_range("model", "[0, inf)", warmup_epochs=warmup_epochs, cycle_epochs=cycle_epochs)
    if importance_weighted and (beta != 1 or warmup_epochs or free_bits):
        raise ValueError("model.importance_weighted has no beta, warmup_epochs or free_bits: set them to 1, 0 and 0")
    if cycle_epochs and not (0 < warmup_epochs <= cycle_epochs and cycle_epochs > 1):
        raise ValueError(
            f"model.cycle_epochs={cycle_epochs} must be at least 2 and needs model.warmup_epochs from 1 to as many,"
            f" not {warmup_epochs}"
        )
