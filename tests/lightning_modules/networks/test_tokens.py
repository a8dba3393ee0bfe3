import pytest
import torch
from torch import Tensor, nn

from lightning_modules import ConvInverter, FrozenFeatures
from lightning_modules.networks.tokens import (
    LayerError,
    Layout,
    Tokens,
    join,
    kind_of,
    layout_of,
    pooled,
    probe_vectors,
    take,
)

DINO = Layout(prefix=5, has_class=True, pools="cls")


class Registered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.reg_token = nn.Parameter(torch.zeros(1, 4, 8))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 8))


def test_the_layout_is_told_by_the_names_of_parameters() -> None:
    assert layout_of(Registered()) == layout_of(nn.Sequential(Registered())) == DINO
    assert layout_of(nn.Linear(2, 2)) == Layout(0, False, "mean")


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((8, 4, 4), "map"),
        ((7, 7, 768), "map, channels last"),
        ((3, 21, 64), "other"),  # heads
        ((21, 8), "tokens"),
        ((16, 8), "tokens"),  # before the others are put in front
        ((77, 8), "other"),
        ((8,), "vector"),
        ((2, 3, 4, 4), "other"),
    ],
)
def test_kinds(shape: tuple[int, ...], kind: str) -> None:
    assert kind_of(shape, DINO) == kind


def test_patches_and_what_is_before_them_are_kept_apart() -> None:
    grid = torch.rand(2, 8, 4, 4)
    before = torch.rand(2, 5, 8)
    tokens = torch.cat([before, grid.flatten(2).mT], dim=1)
    assert take(tokens, "grid", DINO, "x").equal(grid)
    assert take(tokens, "cls", DINO, "x").equal(before[:, 0])
    assert take(tokens, "mean", DINO, "x").allclose(grid.mean(dim=(2, 3)))
    assert take(tokens, "all", DINO, "x") is tokens
    for channels_last in (grid, grid.permute(0, 2, 3, 1)):
        assert take(channels_last, "grid", DINO, "x").equal(grid)
        assert take(channels_last, "mean", DINO, "x").allclose(grid.mean(dim=(2, 3)))
    assert pooled(tokens, DINO).equal(before[:, 0])
    assert pooled(tokens, DINO._replace(pools="mean")).allclose(grid.mean(dim=(2, 3)))
    assert pooled(grid, DINO) is grid
    assert pooled(grid.permute(0, 2, 3, 1), DINO).equal(grid)
    assert pooled(tokens[:, 5:], DINO).allclose(grid.mean(dim=(2, 3)))  # before the class token is put in front
    assert pooled(tokens[:, :3], DINO).allclose(tokens[:, :3].mean(dim=1))  # no grid


def test_probes_get_short_vectors_whatever_the_codes_are() -> None:
    tokens, maps = torch.rand(2, 17, 192), torch.rand(2, 64, 15, 15)
    assert probe_vectors(tokens).allclose(tokens.mean(dim=1))
    assert probe_vectors(maps).allclose(nn.functional.adaptive_avg_pool2d(maps, 4).flatten(1))
    assert probe_vectors(maps, most=1).allclose(maps.mean(dim=(2, 3)), atol=1e-6)
    assert probe_vectors(maps[:, :, :4, :4]).equal(maps[:, :, :4, :4].flatten(1))
    assert probe_vectors(torch.rand(2, 5000)).shape == (2, 5000)
    assert probe_vectors(tokens.bfloat16()).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*RANDOM weights")
@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "swin_tiny_patch4_window7_224"]
)
def test_probes_of_a_networks_last_tokens_get_what_its_own_head_gets(name: str) -> None:
    timm = pytest.importorskip("timm")
    last = {"vit_base_patch16_siglip_224": "blocks.0"}.get(name, "norm")
    size = 64 if name.startswith("vit") else 224
    features = FrozenFeatures(f"timm/{name}", last, weights="random", image_size=size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = timm.create_model(name, img_size=size).eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        tokens = features(images)
        vectors = probe_vectors(tokens, features)
        own = whole.forward_features((images - features.mean) / features.std)
        pooled_by_timm = whole.forward_head(own, pre_logits=True)  # behind the last norm, and no other follows
    if name == "vit_tiny_patch16_224":
        assert tokens.shape == (2, 17, 192)
        assert vectors.shape == (2, 192)
        assert vectors.equal(tokens[:, 0])
    if last == "norm":
        assert vectors.allclose(pooled_by_timm, atol=1e-5)
    else:  # SigLIP pools by attention, which a layer before it cannot have: its patches are averaged
        assert vectors.allclose(tokens.mean(dim=1), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "what", "words"),
    [
        ((1, 8, 4, 4), "cls", "x gives 8 x 4 x 4, which has no class token"),
        ((1, 16, 8), "cls", "has no class token"),
        ((1, 8), "grid", "x gives 8, which has no grid of patches: set encoder.tokens to all"),
        ((1, 77, 8), "mean", "has no patches to average"),
    ],
)
def test_what_a_layer_does_not_have_is_named(shape: tuple[int, ...], what: Tokens, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        take(torch.zeros(shape), what, DINO, "x")


def test_layers_are_joined_at_the_size_of_the_largest() -> None:
    small, large = torch.rand(2, 3, 4, 4), torch.rand(2, 5, 8, 8)
    joined = join([small, large], "concat", ["a", "b"])
    assert joined.shape == (2, 8, 8, 8)
    assert joined[:, 3:].equal(large)
    assert join([small, 2 * small], "sum", ["a", "b"]).allclose(3 * small)
    rows: list[Tensor] = [torch.rand(2, 3), torch.rand(2, 4)]
    assert join(rows, "concat", ["a", "b"]).equal(torch.cat(rows, dim=1))
    assert join([torch.rand(2, 9, 3)] * 2, "concat", ["a", "b"]).shape == (2, 9, 6)
    with pytest.raises(LayerError, match=r"by sum \(a 3 x 4 x 4, b 5 x 8 x 8\)"):
        join([small, large], "sum", ["a", "b"])
    with pytest.raises(LayerError, match="do not go together by concat"):
        join([small, rows[0]], "concat", ["a", "b"])


def test_the_decoder_of_a_vits_grid_has_less_than_3_million_parameters() -> None:
    decoder = ConvInverter(768, 14, 224, width=0.5)
    assert sum(parameter.numel() for parameter in decoder.parameters()) < 3_000_000
