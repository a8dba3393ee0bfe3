"""Images per second that one and two processes encode into one cache of codes.

Run on free cores, as `OMP_NUM_THREADS=1 python benchmarks/encoding.py`: beside other work two processes share what one
core leaves them, and the ratio says nothing.
"""

import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import squeezenet1_1

from datamodules.cache import Rows, mapped
from datamodules.code_cache import cache_codes

IMAGES, SIZE, ROUNDS = 1024, 128, 3


def encode_all(path: Path, cache: Path) -> None:
    """Encodes every image of a file, beside all other processes that do."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # all have the same weights
    network = squeezenet1_1().eval()

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        return network.features(images.float().div_(255)).mean(dim=(2, 3))

    images = mapped(path, (IMAGES, 3, SIZE, SIZE), torch.uint8)
    cache_codes(Rows(images, torch.arange(IMAGES), "random"), encode, "squeezenet1_1", cache, 1.0)


def seconds(path: Path, cache: Path, processes: int) -> tuple[float, float]:
    """Wall and CPU seconds in which so many processes fill a cache that is not there."""
    context = multiprocessing.get_context("fork")
    start, used = time.perf_counter(), os.times()
    workers = [context.Process(target=encode_all, args=(path, cache)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    now = os.times()
    return time.perf_counter() - start, now.children_user - used.children_user


def main() -> None:
    """Runs both in turns and prints a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.u8"
        path.write_bytes(os.urandom(IMAGES * 3 * SIZE * SIZE))
        times = [[seconds(path, Path(folder) / f"{i}-{n}", n) for n in (1, 2)] for i in range(ROUNDS)]
        for processes in (1, 2):
            wall, user = (min(turn[processes - 1][kind] for turn in times) for kind in (0, 1))
            print(f"{processes} processes: {IMAGES / wall:8,.0f} images/s, {user:6.1f} user CPU seconds in all")
        ratio = min(turn[0][0] for turn in times) / min(turn[1][0] for turn in times)
        print(f"two against one: {ratio:.2f} (1.7 wanted, on two free cores)")


if __name__ == "__main__":
    main()
