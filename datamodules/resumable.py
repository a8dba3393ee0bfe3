"""Shuffled batches that a resumed training goes on with where it was killed, in the middle of an epoch too."""

from collections.abc import Iterator, Sized
from operator import length_hint
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler


class ResumableSampler(DistributedSampler[int]):
    """Shuffles by seed and epoch alone, the same on every rank, and can start in the middle of an epoch.

    It is a DistributedSampler also for one process, so that Lightning does not replace it.
    """

    def __init__(self, dataset: Sized, seed: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas, rank, seed=seed)  # type: ignore[arg-type]
        self._start = 0
        self._rest: Iterator[int] | None = None

    def __iter__(self) -> Iterator[int]:
        """The indices of this process, from where a resumed epoch goes on."""
        # A list's own iterator, and not a generator that counts: it is asked for every image.
        start, self._start = self._start, 0
        self._rest = iter(list(super().__iter__())[start:])
        return self._rest

    def set_epoch(self, epoch: int) -> None:
        """Takes the order of an epoch, from its beginning unless it is the one that is resumed."""
        if epoch != self.epoch:
            self._start, self._rest = 0, None
        super().set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many samples of it this process has drawn."""
        drawn = self._start if self._rest is None else self.num_samples - length_hint(self._rest)
        return {"epoch": self.epoch, "drawn": drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there."""
        self.epoch, self._start, self._rest = state["epoch"], state["drawn"], None


class ResumableLoader(DataLoader[Any]):
    """A loader whose position Lightning puts into checkpoints; without worker processes, which would draw ahead."""

    def state_dict(self) -> dict[str, int]:
        """The state of the sampler; empty where Lightning has put another in its place, for `overfit_batches`."""
        return self.sampler.state_dict() if isinstance(self.sampler, ResumableSampler) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        if isinstance(self.sampler, ResumableSampler):
            self.sampler.load_state_dict(state)
