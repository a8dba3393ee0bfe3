import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

#: As `preimage atlas` writes it: two networks, of which the second was neither searched nor read with few labels.
ATLAS = """\
network,layer,shape,values,bits,normalized_error_64,normalized_error_64_sd,psnr_64,psnr_64_sd,psnr_64_twice,\
psnr_64_few,psnr_64_search,psnr_64_downscaled,lpips_64,linear,linear_sd,few_100,effective_rank,invariance_shift,seeds
pixels,64 x 64,3 x 64 x 64,12288,393216,0,,,,,,,,,0.2,,0.1,40,,
pixels,1 x 1,3,3,96,0.69,,11.6,,,,,,,0.05,,0.05,2,,
mean image,,,0,,0.7,,11.5,,,,,,0.9,,,,,,
net (random),conv.1,512 x 8 x 8,32768,1048576,0.3,0.01,21,0.5,21.25,20,14,25,0.4,0.3,0.02,0.15,300,0.6,3
net (random),conv.2,512,512,16384,0.5,0.02,17,0.25,17.5,,,18,0.6,0.5,0.01,,150,0.2,3
<b>,a $ layer,10,10,320,0.6,,15,,,,,,,0.6,,,inf,1.25,1
"""


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    """A folder with all files of an atlas but its pictures."""
    folder = tmp_path / "atlas"
    folder.mkdir()
    (folder / "atlas.csv").write_text(ATLAS)
    names = ["net (random) conv.1", "net (random) conv.2", "<b> a $ layer"]
    cka = pd.DataFrame([[1, 0.5, 0.25], [0.5, 1, 0.125], [0.25, 0.125, 1]], names, names)
    cka.to_csv(folder / "cka.csv", index_label="layer")
    shades = np.arange(2 * 4, dtype=np.uint8).reshape(4, 2, 1, 1, 1) * 30 + np.zeros((64, 64, 1), np.uint8)
    words = np.array(["cat", "dog (n1)"])
    np.savez(folder / "strips.npz", images=shades[0], names=words, layers=np.array(names), reconstructions=shades[1:])
    return folder


@pytest.fixture
def atlas_rows() -> pd.DataFrame:
    """The rows of that atlas, as texts."""
    return pd.read_csv(io.StringIO(ATLAS), dtype=str, keep_default_na=False)
