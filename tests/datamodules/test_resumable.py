import pytest
import torch
from torch.utils.data import DistributedSampler

from datamodules.in_memory import InMemoryDataModule, InMemoryImages
from datamodules.resumable import ResumableSampler


def test_the_order_is_that_of_torch_and_goes_on_where_it_was_left() -> None:
    data = range(11)
    for rank in (0, 1):
        torchs: DistributedSampler[int] = DistributedSampler(data, 2, rank, seed=3)  # type: ignore[arg-type]
        ours, resumed = (ResumableSampler(data, 3, 2, rank) for _ in range(2))
        for sampler in (torchs, ours):
            sampler.set_epoch(4)
        expected = list(torchs)
        drawing = iter(ours)
        assert [next(drawing) for _ in range(2)] == expected[:2]
        assert ours.state_dict() == {"epoch": 4, "drawn": 2}
        resumed.load_state_dict(ours.state_dict())
        assert resumed.state_dict() == ours.state_dict()
        resumed.set_epoch(4)
        assert list(resumed) == expected[2:] == list(drawing)
        assert list(resumed) == expected  # a second pass is whole
        for sampler in (torchs, resumed):
            sampler.set_epoch(5)
        assert resumed.state_dict() == {"epoch": 5, "drawn": 0}
        assert list(resumed) == list(torchs) != expected


def test_batches_go_on_and_draw_nothing_from_the_global_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    data = InMemoryDataModule(batch_size=3)
    data.train_set = InMemoryImages(torch.zeros(10, 1, 1, 1, dtype=torch.uint8), torch.arange(10))
    before = torch.get_rng_state()
    loader, resumed = data.train_dataloader(), data.train_dataloader()
    drawing = iter(loader)
    next(drawing)
    resumed.load_state_dict(loader.state_dict())  # type: ignore[attr-defined]
    assert [labels.tolist() for _, labels, _ in resumed] == [labels.tolist() for _, labels, _ in drawing]
    assert torch.get_rng_state().equal(before)
