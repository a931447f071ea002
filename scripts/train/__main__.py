"""The command line of the recipe: `scripts/train/run STEP ...`, or `python -m scripts.train STEP ...` in the repository's root."""

from __future__ import annotations

import sys

from facepipe.cli.common import exit_code_of
from scripts.train.cli import cli

if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: cli.main(prog_name="scripts/train/run", standalone_mode=False)))
