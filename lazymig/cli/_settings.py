"""Settings and where they came from: a flag, then the environment, then pyproject.toml.

What belongs to the source (suites) may be written in the source; what belongs to a deployment (the store) comes from
flag or environment. A store in pyproject.toml is for development, and may not hold a password.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lazymig.cli._output import Refusal, suggest
from lazymig.errors import ConfigurationError
from lazymig.stores import hide_password

STORE_VARIABLE = "LAZYMIG_STORE"
KEYS = ("store", "suites")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line was told.

    Attributes:
        file: The pyproject.toml with ``[tool.lazymig]``, or None.
        store: URL of the store, or None.
        store_source: ``--store``, ``LAZYMIG_STORE``, the file, or None.
        suites: ``module:attribute`` of each suite.
    """

    file: Path | None
    store: str | None
    store_source: str | None
    suites: tuple[str, ...]

    @property
    def shown_store(self) -> str | None:
        """The store's URL as it may be shown."""
        return None if self.store is None else hide_password(self.store)

    def require_store(self) -> str:
        """Return the store's URL.

        Raises:
            Refusal: None is configured, or one that ends with the command.
        """
        if self.store is None:
            raise Refusal("no_store", f"no store is configured. Give --store URL, or set {STORE_VARIABLE}.")
        if self.store == "memory:":
            raise Refusal("no_store", "memory: ends with the command. Give --store sqlite:///… or another kept store.")
        return self.store


def read_settings(store: str | None) -> Settings:
    """Return the settings for the folder at hand.

    Args:
        store: The flag ``--store``.

    Raises:
        ConfigurationError: A pyproject.toml can't be read, or says something wrong.
    """
    file, table = _find_table()
    in_file = None if file is None else _store_of(table, file)
    suites = () if file is None else _suites_of(table, file)
    found = ((store, "--store"), (os.environ.get(STORE_VARIABLE), STORE_VARIABLE), (in_file, str(file)))
    url, source = next(((url, source) for url, source in found if url), (None, None))
    return Settings(file, url, source, suites)


def _find_table() -> tuple[Path | None, dict[str, Any]]:
    """Find the nearest pyproject.toml upwards that speaks of lazymig; one of a sub-package that doesn't is no end."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        file = folder / "pyproject.toml"
        if file.is_file():
            table = _read_table(file)
            if table is not None:
                return file, table
    return None, {}


def _read_table(file: Path) -> dict[str, Any] | None:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} can't be read: {error}. Put it right.") from error
    tool = content.get("tool")
    table = tool.get("lazymig") if isinstance(tool, dict) else None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise ConfigurationError(f"{file}: lazymig under [tool] is no table. Write [tool.lazymig].")
    for key in table:
        if key not in KEYS:
            known = " and ".join(KEYS)
            hint = suggest(key, KEYS) or f" Remove it; there are {known}."
            raise ConfigurationError(f"{file}: [tool.lazymig] has no setting {key!r}.{hint}")
    return table


def _store_of(table: dict[str, Any], file: Path) -> str | None:
    url = table.get("store")
    if url is None:
        return None
    if not isinstance(url, str):
        raise ConfigurationError(f"{file}: store is of type {type(url).__name__}. Write a URL in quotes.")
    if hide_password(url) != url:
        raise ConfigurationError(
            f"{file}: store holds a password, which would be published with the source. "
            f"Take it out, and set {STORE_VARIABLE} where lazymig runs."
        )
    return _anchor(url, file.parent)


def _anchor(url: str, folder: Path) -> str:
    """Read a relative path from where it is written, not from where the command happens to run."""
    start = "sqlite:///"
    if not url.startswith(start) or url.startswith(start + "/"):
        return url
    return f"{start}{quote(str(folder))}/{url.removeprefix(start)}"


def _suites_of(table: dict[str, Any], file: Path) -> tuple[str, ...]:
    suites = table.get("suites", [])
    if not isinstance(suites, list) or not all(isinstance(name, str) for name in suites):
        raise ConfigurationError(f'{file}: suites is no list of strings. Write suites = ["package.module:suite"].')
    for name in suites:
        module, colon, attribute = name.partition(":")
        if not (module and colon and attribute):
            raise ConfigurationError(f'{file}: {name!r} names no suite. Write it as "package.module:suite".')
    return tuple(suites)
