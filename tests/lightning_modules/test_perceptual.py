import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.transforms.functional import gaussian_blur, pil_to_tensor, resize

from datamodules import MNISTDataModule
from lightning_modules import (
    LPIPS,
    FeatureDistance,
    FrozenFeatures,
    Inversion,
    MNISTDecoder,
    MNISTEncoder,
    PatchDiscriminator,
)
from tests.lightning_modules.networks.test_trained import DATA, needed
from tests.lightning_modules.test_base import trainer

HEADS = "torchmetrics/functional/image/lpips_models/squeeze.pth"

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM weights")


@pytest.mark.parametrize("net", ["squeeze", "alex", pytest.param("vgg", marks=pytest.mark.slow)])
def test_lpips_is_that_of_torchmetrics_on_the_same_trunk(net: Any) -> None:
    ours, theirs = LPIPS(net, "random"), _LPIPS(net=net, pnet_rand=True)
    trunk = zip(theirs.net.state_dict(), ours.features.network.state_dict().values(), strict=True)
    theirs.net.load_state_dict(dict(trunk))
    target = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    preds = [image.requires_grad_() for image in ((target * 0.8).clone(), (target * 0.8).clone())]
    found, expected = ours(preds[0], target), theirs(preds[1], target, normalize=True).flatten()
    assert found.allclose(expected, rtol=1e-4) and found.min() > 0
    gradients = [
        torch.autograd.grad(part.sum(), image)[0] for part, image in zip((found, expected), preds, strict=True)
    ]
    assert gradients[0].allclose(gradients[1], rtol=1e-3, atol=1e-6)
    assert ours.name.startswith(f"{net}, ")


def test_lpips_by_hand_of_gray_images() -> None:
    distance, images = LPIPS("squeeze", "random"), torch.rand(2, 2, 1, 28, 28)
    heads = torch.load(Path(torch.__file__).parents[1] / HEADS, map_location="cpu", weights_only=True).values()
    mean, std = torch.tensor([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]])[:, :, None, None]
    layers: list[dict[str, Any]] = [
        distance.features.network((2 * part.expand(-1, 3, -1, -1) - 1 - mean) / std) for part in images
    ]
    total = torch.zeros(2)
    for name, head in zip(distance.features.layers, heads, strict=True):
        one, other = (outputs[name] / outputs[name].norm(dim=1, keepdim=True).clamp(min=1e-10) for outputs in layers)
        total += torch.einsum("bchw,c->bhw", (one - other) ** 2, head.flatten()).mean(dim=(1, 2))
    assert distance(*images).allclose(total, rtol=1e-3)
    assert distance(images[0], images[0]).tolist() == [0, 0]


def test_the_distance_of_features_is_relative_and_the_mean_over_layers() -> None:
    features = FrozenFeatures("squeezenet1_1", layers=["features.1", "features.12"], weights="random", image_size=None)
    images = torch.rand(2, 2, 3, 40, 40)
    expected = torch.zeros(2)
    for layer in features.layers:
        alone = FrozenFeatures("squeezenet1_1", layer, weights="random", image_size=None)
        one, other = (alone(part).flatten(1) for part in images)
        expected += (one - other).norm(dim=1) ** 2 / other.norm(dim=1) ** 2 / 2
    assert FeatureDistance(features)(*images).allclose(expected, rtol=1e-4)


def test_a_blur_is_further_than_noise_of_the_same_error() -> None:
    distance = LPIPS("squeeze", str(needed(DATA / "weights/squeezenet1_1.pth")))
    with zipfile.ZipFile(needed(DATA / "butterflies-75.zip")) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        files = [io.BytesIO(archive.read(name)) for name in names[:: len(names) // 48][:48]]
    images = torch.stack([resize(pil_to_tensor(Image.open(file).convert("RGB")), [64, 64]) for file in files]) / 255
    noise = 0.105 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    for changed, lpips in ((gaussian_blur(images, [25, 25], [3.0, 3.0]), 0.50), ((images + noise).clamp(0, 1), 0.29)):
        assert float(-10 * (changed - images).square().mean().log10()) == pytest.approx(19.9, abs=0.3)
        assert float(distance(changed, images).mean()) == pytest.approx(lpips, abs=0.05)


def test_what_is_wrong_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    said = (
        rf"no weights DEFAULT of squeezenet1_1: bring https://.*/squeezenet1_1-\w+\.pth into {tmp_path}/checkpoints, or"
    )
    with pytest.raises(FileNotFoundError, match=said):
        LPIPS()
    with pytest.raises(FileNotFoundError, match=r"no weights nowhere\.pth of alexnet: bring .* or name the file"):
        LPIPS.named("alex:nowhere.pth")
    with pytest.raises(ValueError, match="no LPIPS of resnet: choose one of squeeze, alex, vgg"):
        LPIPS.named("resnet")
    with pytest.raises(ValueError, match=r"LPIPS \(alex, \w+\) takes no images of 1 x 28 x 28"):
        LPIPS("alex", "random")(torch.zeros(1, 1, 28, 28), torch.zeros(1, 1, 28, 28))
    with pytest.raises(ValueError, match=r"model.perceptual_weight=-1 must be above 0"):
        Inversion(nn.Flatten(), nn.Identity(), None, perceptual_weight=-1)


def both(**kwargs: Any) -> Inversion:
    torch.manual_seed(0)
    terms: dict[str, Any] = {"perceptual": LPIPS("squeeze", "random"), "adversarial": PatchDiscriminator(1, width=0.25)}
    return Inversion(MNISTEncoder(), MNISTDecoder(), encoder_checkpoint=None, **terms, **kwargs)


def test_the_loss_is_the_weighted_sum_of_its_parts_and_only_the_discriminator_sees_its_own() -> None:
    model = both(perceptual_weight=0.5, adversarial_weight=0.25)
    images = torch.rand(4, 1, 28, 28)
    loss = model.training_step((images, torch.zeros(4).long()), 0)
    rebuilt = model(images)
    perceptual, adversarial = model.perceptual, model.adversarial
    assert perceptual is not None and adversarial is not None
    real, fake = adversarial(images), adversarial(rebuilt)
    parts = {
        "mse": F.mse_loss(rebuilt, images),
        "perceptual": perceptual(rebuilt, images).mean(),
        "adversarial": -fake.sigmoid().log().mean(),
        "discriminator": -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean(),
    }
    total = parts["mse"] + 0.5 * parts["perceptual"] + 0.25 * parts["adversarial"]
    logged = model.train_metrics.compute() | model.discriminator_metrics.compute()
    assert float(logged.pop("train/loss")) == pytest.approx(total.item(), rel=1e-5)
    assert loss.item() == pytest.approx((total + parts["discriminator"]).item(), rel=1e-5)
    expected = {f"train/{name}": pytest.approx(float(part.detach()), rel=1e-4) for name, part in parts.items()}
    assert {name: float(value) for name, value in logged.items()} == expected
    loss.backward()
    for part, network in ((total, model.decoder), (parts["discriminator"], adversarial)):
        weights = list(network.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(part, weights, retain_graph=True), strict=True):
            assert weight.grad is not None and weight.grad.allclose(gradient, rtol=1e-3, atol=1e-6)
    assert all(parameter.grad is None for parameter in perceptual.parameters())
    model.validation_step((images, torch.zeros(4).long()), 0)
    assert float(model.val_metrics["loss"].compute()) == pytest.approx(total.item(), rel=1e-5)


def test_both_terms_resume_bit_for_bit_and_the_network_stays_out_of_the_checkpoint(tmp_path: Path) -> None:
    def fit(epochs: int, ckpt_path: Path | None = None) -> Inversion:
        model, run = both(), trainer(tmp_path, max_epochs=epochs, gradient_clip_val=1.0, accumulate_grad_batches=2)
        run.fit(model, MNISTDataModule(batch_size=8), ckpt_path=ckpt_path)
        run.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return model

    fit(1)
    resumed = fit(2, tmp_path / "1.ckpt").state_dict()
    whole = fit(2).state_dict()
    assert all(value.equal(resumed[name]) for name, value in whole.items())
    saved = torch.load(tmp_path / "2.ckpt", weights_only=True)
    kept = {name: value for name, value in saved["state_dict"].items() if name.startswith("perceptual")}
    assert {name: tuple(value.shape) for name, value in kept.items()} == {"perceptual.features._extra_state": (32,)}
    learned = sum(1 for name in whole if name.startswith(("decoder.", "adversarial.")))
    assert len(saved["optimizer_states"][0]["state"]) == learned
