"""The command line: ``lazymig``, of the extra ``lazymig[cli]``."""

from __future__ import annotations

import sys

try:
    import click as _click
except ModuleNotFoundError as error:
    sys.stderr.write(f"lazymig: the command line needs {error.name}. Run: pip install 'lazymig[cli]'\n")
    raise SystemExit(2) from None

del _click

from lazymig.cli._tool import main  # noqa: E402  (after the check, which gives the cure)

__all__ = ["main"]
