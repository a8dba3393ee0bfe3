"""Heads: small networks that read something out of a code."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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


class AttentivePool(nn.Module):
    """Attentive probing: a learned query asks all tokens by one cross-attention, and a linear layer reads its answer.

    Maps tokens `(B, T, in_features)` or maps `(B, in_features, h, w)` to logits `(B, num_classes)`. From CAE (Chen et
    al. 2022, arXiv 2202.03026) and V-JEPA (Bardes et al. 2024, arXiv 2404.08471), without the MLP of the latter.

    Args:
        in_features: Length of a token, or channels of a map.
        num_heads: Parts of a token that are attended to by themselves; they must divide it.
        num_classes: Number of logits.
    """

    def __init__(self, in_features: int = 384, num_heads: int = 6, num_classes: int = 10) -> None:
        check_range("AttentivePool", "[1, inf)", in_features=in_features, num_heads=num_heads, num_classes=num_classes)
        if in_features % num_heads:
            raise ValueError(f"head.num_heads={num_heads} must divide head.in_features={in_features}")
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, in_features))
        self.before = nn.LayerNorm(in_features)
        self.attention = nn.MultiheadAttention(in_features, num_heads, batch_first=True)
        self.after = nn.LayerNorm(in_features)
        self.classify = nn.Linear(in_features, num_classes)

    def forward(self, codes: Tensor) -> Tensor:
        """Maps tokens `(B, T, in_features)` or maps `(B, in_features, h, w)` to logits `(B, num_classes)`."""
        tokens = self.before(codes.flatten(2).mT if codes.ndim == 4 else codes)
        answer, _ = self.attention(self.query.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)
        return self.classify(self.after(answer[:, 0]))
