"""``lazymig config``: each setting and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazymig.cli._access import common_options
from lazymig.cli._settings import STORE_VARIABLE, read_settings

if TYPE_CHECKING:
    from lazymig.cli._output import Output


@click.command("config")
@common_options
@click.pass_obj
def command(output: Output, store: str | None) -> None:
    """Show each setting and where it came from.

    A flag comes before LAZYMIG_STORE, and that before [tool.lazymig] of the nearest pyproject.toml that has it.
    Passwords are hidden. Nothing is opened or imported.
    """
    settings = read_settings(store)
    file = None if settings.file is None else str(settings.file)
    document = {
        "file": file,
        "store": {"value": settings.shown_store, "source": settings.store_source},
        "suites": {"value": list(settings.suites), "source": file if settings.suites else None},
    }
    rows = (
        ("file", file, None, "no pyproject.toml here or above has [tool.lazymig]"),
        ("store", settings.shown_store, settings.store_source, f"give --store URL, or set {STORE_VARIABLE}"),
        ("suites", ", ".join(settings.suites), file, "list them in [tool.lazymig] of pyproject.toml"),
    )
    output.answer(document, "\n".join(_row(*row) for row in rows))


def _row(name: str, value: str | None, source: str | None, hint: str) -> str:
    if not value:
        return f"{name:<6}  not set ({hint})"
    return f"{name:<6}  {value}" if source is None else f"{name:<6}  {value}  (from {source})"
