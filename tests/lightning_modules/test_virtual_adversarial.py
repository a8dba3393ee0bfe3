import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from lightning_modules import MLPHead, MNISTEncoder, VirtualAdversarialTraining


def test_a_linear_classifier_of_two_classes_against_its_closed_form() -> None:
    torch.manual_seed(0)
    layer, vat = nn.Linear(12, 2), VirtualAdversarialTraining(epsilon=0.8)
    linear = nn.Sequential(nn.Flatten(), layer)
    across = F.normalize(layer.weight[0] - layer.weight[1], dim=0).view(1, 1, 3, 4)  # the only way to change it
    for image in torch.rand(8, 1, 1, 3, 4):
        divergence, entropy = vat(linear, image, linear(image))
        here = Categorical(logits=linear(image))
        either = [kl_divergence(here, Categorical(logits=linear(image + sign * 0.8 * across))) for sign in (-1, 1)]
        assert min(abs(divergence.item() - value.item()) for value in either) < 1e-5
        assert entropy.item() == pytest.approx(here.entropy().item(), rel=1e-5)


def test_the_found_neighbours_change_a_network_more_than_others_at_the_same_distance() -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(MNISTEncoder(), MLPHead()), torch.rand(32, 1, 28, 28)
    vat, logits = VirtualAdversarialTraining(epsilon=2.0), model(images)
    found, _ = vat(model, images, logits)
    moved = images + 2 * F.normalize(torch.randn_like(images).flatten(1), dim=1).view_as(images)
    other = F.kl_div(model(moved).log_softmax(dim=1), logits.softmax(dim=1), reduction="batchmean")
    assert found > 5 * other > 0
