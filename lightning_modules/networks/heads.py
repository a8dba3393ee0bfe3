"""Heads: small networks that read something out of a code."""

from collections.abc import Sequence

from torch import nn

from preimage.checks import check_range


class MLPHead(nn.Sequential):
    """Linear layers with a ReLU, and perhaps dropout, after all but the last; 1,482 parameters for 12 -> 64 -> 10.

    Maps codes `(B, in_features)` to logits `(B, num_classes)`.

    Args:
        in_features: Length of the code.
        hidden_features: Width of the hidden layer, or of each.
        num_classes: Number of logits.
        dropout: Share of the hidden features that is left out in training, for all hidden layers or each.
    """

    def __init__(
        self,
        in_features: int = 12,
        hidden_features: int | Sequence[int] = 64,
        num_classes: int = 10,
        dropout: float | Sequence[float] = 0.0,
    ) -> None:
        widths = [hidden_features] if isinstance(hidden_features, int) else list(hidden_features)
        shares = [dropout] * len(widths) if isinstance(dropout, float | int) else list(dropout)
        if len(shares) != len(widths):
            raise ValueError(f"head.dropout has {len(shares)} values for {len(widths)} hidden layers")
        check_range("MLPHead", "[1, inf)", in_features=in_features, hidden_features=widths, num_classes=num_classes)
        check_range("MLPHead", "[0, 1]", dropout=shares)
        layers: list[nn.Module] = []
        for width, share in zip(widths, shares, strict=True):
            layers += [nn.Linear(in_features, width), nn.ReLU(), *([nn.Dropout(share)] if share else [])]
            in_features = width
        super().__init__(*layers, nn.Linear(in_features, num_classes))
