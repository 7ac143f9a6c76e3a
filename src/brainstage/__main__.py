"""``python -m brainstage`` is the command line."""

from brainstage.cli import main

main()
