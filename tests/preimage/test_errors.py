import errno
import os

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from preimage.errors import CommandParser, explain
from preimage.parsing import condense


def test_condense_keeps_the_path_and_the_reason() -> None:
    tree = """Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'Data'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'Data':
        Option 'siez' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'siez': 3}"""
    assert condense(tree) == "Parser key \"data\": Problem with given class_path 'Data': Option 'siez' is not accepted"


def test_values_are_joined_to_the_flags_that_a_command_hands_on() -> None:
    flags = [
        "--data.root",
        "a b",
        "--test_after_fit",
        "--trainer.max_epochs=-1",
        "--model.beta",
        "-1",
        "--x=1",
        "stray",
    ]
    expected = ["--data.root=a b", "--test_after_fit", "--trainer.max_epochs=-1", "--model.beta=-1", "--x=1", "stray"]
    assert CommandParser("preimage").parse_known_args(flags)[1] == expected


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a  b\nc"), "a b c"),
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT), "runs/a"), "runs/a: No such file or directory"),
        (
            PermissionError(errno.EACCES, "Permission denied", "no/runs"),
            "no/runs: Permission denied: take a folder that you may write to, for runs by trainer.default_root_dir, for"
            " caches by data.cache_dir",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a"),
            "a: No space left on device: make room on the disk, and",
        ),
        (MisconfigurationException("`x` is wrong"), "`x` is wrong"),
        (ModuleNotFoundError("No module named 'mine'"), "No module named 'mine'"),
        (
            ValueError("LBFGS doesn't support per-parameter options"),
            "LBFGS doesn't support per-parameter options: leave",
        ),
        (KeyError("epoch"), "unexpected KeyError: 'epoch'"),
        (MemoryError(), "unexpected MemoryError"),
        (RuntimeError("value cannot be converted to type float without overflow"), "value cannot be converted to type"),
    ],
)
def test_no_message_begins_with_the_name_of_an_exception(error: Exception, said: str) -> None:
    assert explain(error).startswith(said)


def test_what_was_to_be_read_gets_no_advice_on_where_to_write() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", __file__)
    assert explain(error) == f"{__file__}: Permission denied"
