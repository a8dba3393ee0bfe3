from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_modules import MNISTEncoder
from lightning_modules.checkpoints import load_checkpoint, load_part


def save(path: Path, encoder: nn.Module) -> Path:
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    torch.save({"state_dict": state | {"decoder.weight": torch.zeros(3)}}, path)
    return path


def test_load_part_takes_the_part_and_leaves_the_rest(tmp_path: Path) -> None:
    source, target = MNISTEncoder(), MNISTEncoder()
    load_part(target, save(tmp_path / "a.ckpt", source), "encoder")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_a_part_of_another_shape_names_both(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", MNISTEncoder(latent_dim=5))
    with pytest.raises(ValueError, match=r"a\.ckpt.*9\.weight has shape \(5, 576\), the model's has \(12, 576\)"):
        load_part(MNISTEncoder(), path, "encoder")


def test_a_missing_and_a_left_over_tensor_are_named(tmp_path: Path) -> None:
    small, large = nn.Sequential(nn.Linear(2, 3)), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    with pytest.raises(ValueError, match=r"it has no 1\.weight, here of shape \(4, 3\)"):
        load_part(large, save(tmp_path / "small.ckpt", small), "encoder")
    with pytest.raises(ValueError, match=r"its 1\.weight \(4, 3\) is not in the model"):
        load_part(small, save(tmp_path / "large.ckpt", large), "encoder")


def test_files_that_are_no_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.ckpt is"):
        load_checkpoint(tmp_path / "text.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="has no state_dict"):
        load_checkpoint(tmp_path / "list.ckpt")
    torch.save({"state_dict": {}, "path": Path("x")}, tmp_path / "path.ckpt")
    with pytest.raises(ValueError, match=r"refused.*pathlib"):
        load_checkpoint(tmp_path / "path.ckpt")
