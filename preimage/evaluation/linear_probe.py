"""Logistic regression of few and of many codes."""

from typing import Self

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

LARGE = 100_000_000  # products of codes, numbers and classes, from which scikit-learn takes minutes
_CHUNK = 8192  # codes whose logits are in memory at a time
_SAMPLE = 10_000  # codes that the curvature is estimated from, and at least twice as many as a code has numbers


class LinearProbe:
    """scikit-learn's `LogisticRegression`, and for many codes another way to the minimum of its objective.

    That is the mean cross-entropy plus `||W||^2 / (2 C N)`. Codes vary much in few directions and little in many, which
    costs L-BFGS hundreds of steps; in coordinates in which the curvature at the start is alike in all directions it
    takes twenty to forty.

    Args:
        C: Inverse strength of the penalty.
        max_iter: Most steps.
        device: Where many codes are learned from.
        start: A probe fitted before, from whose weights this one goes on where there are many codes.
    """

    def __init__(
        self, C: float = 1.0, max_iter: int = 300, device: torch.device | str = "cpu", start: Self | None = None
    ) -> None:
        self.C, self.max_iter, self.device, self.start = C, max_iter, device, start
        self.small: LogisticRegression | None = None

    def fit(self, codes: Tensor, labels: Tensor) -> Self:
        """Learns from standardised codes `(N, D)` and their labels `(N,)`, of two classes or more."""
        self.classes, targets = labels.unique(return_inverse=True)
        if codes.numel() * len(self.classes) < LARGE:
            self.small = LogisticRegression(C=self.C, max_iter=self.max_iter).fit(codes.numpy(), labels.numpy())
        else:
            self._minimise(codes.to(self.device), targets.to(self.device))
        return self

    def predict(self, codes: Tensor) -> Tensor:
        """Class `(N,)` of each code."""
        if self.small is not None:
            return torch.from_numpy(self.small.predict(codes.numpy()))
        parts = [self._logits(part.to(self.device)).argmax(1).cpu() for part in codes.split(_CHUNK)]
        return self.classes[torch.cat(parts)]

    def _minimise(self, codes: Tensor, targets: Tensor) -> None:
        (count, width), size = codes.shape, len(self.classes)
        columns = size if size > 2 else 1  # of two classes the first has the logit 0, as with scikit-learn
        self.weight, self.bias = codes.new_zeros(width, columns), codes.new_zeros(columns)
        if self.start is not None:
            self.weight, self.bias = self.start.weight, self.start.bias
        penalty = 1 / (self.C * count)
        root, scale = self._curvature(codes, penalty)
        free = [root.T @ self.weight, self.bias * scale]
        optimizer = torch.optim.LBFGS(
            params=free,
            max_iter=self.max_iter,
            tolerance_grad=1e-4,
            tolerance_change=0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def loss() -> float:
            self.weight, self.bias = torch.linalg.solve_triangular(root.T, free[0], upper=True), free[1] / scale
            value = count * penalty / 2 * float(self.weight.square().sum())
            by_weight, by_bias = count * penalty * self.weight, torch.zeros_like(self.bias)
            for part, target in zip(codes.split(_CHUNK), targets.split(_CHUNK), strict=True):
                logs = self._logits(part).log_softmax(1)
                value += float(F.nll_loss(logs, target, reduction="sum"))
                errors = (logs.exp() - F.one_hot(target, size))[:, size - columns :]
                by_weight.addmm_(part.T, errors)
                by_bias += errors.sum(0)
            free[0].grad = torch.linalg.solve_triangular(root, by_weight / count, upper=False).contiguous()
            free[1].grad = by_bias / count / scale
            return value / count

        optimizer.step(loss)
        loss()  # leaves the weights of the best step

    def _curvature(self, codes: Tensor, penalty: float) -> tuple[Tensor, float]:
        """Cholesky factor `(D, D)` of the loss's curvature along the weights of a class, and its root along a bias."""
        some = codes[:: max(1, len(codes) // max(_SAMPLE, 2 * codes.shape[1]))]
        probability = self._logits(some).softmax(1)
        unsure = (probability * (1 - probability)).mean(1, keepdim=True)
        curvature = (some * unsure).T @ some / len(some)
        curvature.diagonal().add_(penalty + 1e-3 * float(curvature.diagonal().mean()))
        return torch.linalg.cholesky(curvature), float(unsure.mean().sqrt())

    def _logits(self, codes: Tensor) -> Tensor:
        logits = torch.addmm(self.bias, codes, self.weight)
        return logits if logits.shape[1] > 1 else F.pad(logits, (1, 0))
