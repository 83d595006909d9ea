"""``python -m lazymig.cli`` is ``lazymig``."""

from lazymig.cli import main

main()
