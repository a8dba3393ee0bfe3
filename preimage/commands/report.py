"""`preimage report`: tables, charts and pictures of finished runs, from their directories alone."""

from collections.abc import Sequence
from pathlib import Path

from preimage.errors import CommandParser


def main(args: Sequence[str]) -> None:
    """Runs the command.

    Args:
        args: The arguments after `report`.
    """
    parser = CommandParser("preimage report", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories, or folders above them")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report, by default report")
    parser.add_argument("--title", default="What every representation keeps", help="heading of the page")
    parser.add_argument("--readme", type=Path, help="file whose part between the markers is written, too")
    options = parser.parse_args(args)
    from preimage.reporting.report import write_report

    write_report(options.runs, options.out, options.title, options.readme)
