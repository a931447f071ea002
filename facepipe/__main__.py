"""`python -m facepipe` is the same as `facepipe`."""

from facepipe.cli import main

main()
