from pathlib import Path

import pytest
import torch

from datamodules.in_memory import InMemoryDataModule, InMemoryImages
from preimage.evaluation.atlas.measures import is_labelled
from preimage.evaluation.atlas.plan import noted


@pytest.mark.parametrize(
    ("train", "test", "labelled"),
    [([0, 1, -1], [-1, 1], True), ([0, 0, -1], [0, 1], False), ([0, 1], [-1, -1], False), ([-1, -1], [-1], False)],
)
def test_probes_need_labels_of_two_classes_and_some_to_test(train: list[int], test: list[int], labelled: bool) -> None:
    data = InMemoryDataModule()
    data.train_set, data.test_set = (
        InMemoryImages(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels))
        for labels in (train, test)
    )
    assert is_labelled(data) == labelled


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"settings": 1}', "{", "[" * 2000, ""])
def test_a_damaged_file_of_a_layer_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "reads.json").write_text(text)
    with pytest.raises(ValueError, match=r"reads\.json (is damaged: it has no settings; remove it|cannot be read)"):
        noted(tmp_path / "reads.json")
