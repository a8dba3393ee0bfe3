"""Which code this is."""

import subprocess
from pathlib import Path


def git_commit() -> str | None:
    """The commit of this code, with `-dirty` after it where files were changed; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
