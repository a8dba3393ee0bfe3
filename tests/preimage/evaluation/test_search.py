import json

import torch
from torch import Tensor, nn

from lightning_modules.inversion import OptimizationInversion, at_common_size
from preimage.evaluation.measures import reconstruction_errors
from preimage.evaluation.search import tuned_search

CPU = torch.device("cpu")


def pictures(seed: int, smooth: bool) -> Tensor:
    size = 2 if smooth else 16
    images = torch.rand(6, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return (nn.functional.interpolate(images, (16, 16), mode="bilinear") * 255).byte()


def psnr(search: nn.Module, images: Tensor) -> float:
    return reconstruction_errors(search, images, CPU, at_common_size)["psnr"]


def test_the_weights_fit_what_the_validation_images_are_like() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(256, 80, bias=False))  # what it leaves open, the weights decide
    smooth, figures = tuned_search(encoder, pictures(0, True), 16, CPU, steps=300)
    rough, _ = tuned_search(encoder, pictures(0, False), 16, CPU, steps=300)
    default = OptimizationInversion(encoder, 16, 1, steps=300).eval()
    assert smooth.variation_weight > 10 * rough.variation_weight
    for best, other, kind in ((smooth, rough, True), (rough, smooth, False)):
        images = pictures(1, kind)  # which took no part in the choice
        assert best.steps == 300
        assert psnr(best, images) > max(psnr(other, images), psnr(default, images)) + 0.2
    assert json.loads(json.dumps(figures)) == figures
    tried = {(row["variation_weight"], row["norm_weight"], row["steps"]): row["psnr_64"] for row in figures}
    assert len(tried) == len(figures)
    default.steps = 60
    assert tried[10.0, 0.1, 60] == psnr(default, pictures(0, True))
    chosen = max((key for key in tried if key[2] == 150), key=lambda key: tried[key])
    assert chosen[:2] == (smooth.variation_weight, smooth.norm_weight)
