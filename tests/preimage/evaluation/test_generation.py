import pytest
import torch
from torch import Tensor

from preimage.evaluation.generation import Extractor, measure_generation


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError("expected 3 channels"), ValueError, r"the extractor some takes no images \(1, 8, 8\)"),
    ],
)
def test_a_failing_extractor_is_blamed_for_the_images_and_not_for_the_memory(
    error: Exception, raised: type[Exception], said: str
) -> None:
    def fail(images: Tensor) -> Tensor:
        raise error

    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(raised, match=said):
        measure_generation(
            lambda count: torch.zeros(count, 1, 8, 8), images, Extractor("some", fail), torch.device("cpu")
        )
