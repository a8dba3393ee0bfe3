from pathlib import Path

import pytest

from preimage.evaluation.atlas.plan import figures_in


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"settings": 1}', "{", "[" * 2000, ""])
def test_a_damaged_file_of_a_layer_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "reads.json").write_text(text)
    with pytest.raises(ValueError, match=r"reads\.json (is damaged: it has no settings; remove it|cannot be read)"):
        figures_in(tmp_path / "reads.json")
