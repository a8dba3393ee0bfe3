import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules import AttentivePool, MLPHead, MNISTDecoder, MNISTEncoder


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("network", "count"), [(MNISTEncoder(), 30_476), (MNISTDecoder(), 30_977), (MLPHead(12, 64, 10), 1_482)]
)
def test_parameter_counts_are_those_of_the_system(network: nn.Module, count: int) -> None:
    assert parameters(network) == count


@pytest.mark.parametrize("latent_dim", [1, 12, 40])
def test_shapes_and_range(latent_dim: int) -> None:
    code = MNISTEncoder(latent_dim)(torch.rand(3, 1, 28, 28))
    assert code.shape == (3, latent_dim)
    image = MNISTDecoder(latent_dim)(100 * code)
    assert image.shape == (3, 1, 28, 28)
    assert image.min() >= 0
    assert image.max() <= 1


def test_layers_are_in_the_order_of_the_system() -> None:
    encoder = " ".join(type(layer).__name__ for layer in MNISTEncoder())
    assert encoder == "Conv2d ReLU MaxPool2d Conv2d ReLU MaxPool2d Conv2d ReLU Flatten Linear"
    decoder = " ".join(type(layer).__name__ for layer in MNISTDecoder())
    assert decoder == "Linear Unflatten ConvTranspose2d ReLU ConvTranspose2d ReLU ConvTranspose2d Sigmoid"


def attended(head: AttentivePool, tokens: Tensor) -> Tensor:
    """The logits, with every step of the attention written out."""
    tokens = F.layer_norm(tokens, tokens.shape[-1:], head.before.weight, head.before.bias)
    weights, biases = head.attention.in_proj_weight, head.attention.in_proj_bias
    projected = [
        F.linear(x, weight, bias).unflatten(2, (head.attention.num_heads, -1)).transpose(1, 2)
        for x, weight, bias in zip((head.query, tokens, tokens), weights.chunk(3), biases.chunk(3), strict=True)
    ]
    answer = F.scaled_dot_product_attention(projected[0].expand(len(tokens), -1, -1, -1), *projected[1:])
    answer = head.attention.out_proj(answer.transpose(1, 2).flatten(2))[:, 0]
    return F.linear(head.after(answer), head.classify.weight, head.classify.bias)


def test_a_learned_query_attends_to_all_tokens_or_places() -> None:
    torch.manual_seed(0)
    head, maps = AttentivePool(12, 3, 5), torch.randn(4, 12, 2, 3)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    tokens = maps.flatten(2).mT
    logits = head(tokens)
    assert logits.shape == (4, 5)
    assert logits.allclose(attended(head, tokens), atol=1e-5)
    assert head(maps).allclose(logits, atol=1e-6)
    assert head(tokens[:, [3, 1, 5, 0, 2, 4]]).allclose(logits, atol=1e-5)  # tokens have no order but their own
    assert parameters(head) == 12 + 2 * 24 + 4 * 12 * 13 + 5 * 13


def test_heads_of_attention_divide_a_token() -> None:
    with pytest.raises(ValueError, match=r"head\.num_heads=5 must divide head\.in_features=12"):
        AttentivePool(12, 5)
