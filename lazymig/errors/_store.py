"""Errors of stores, and of the command line's settings."""

from __future__ import annotations

from lazymig.errors._base import LazymigError


class StoreError(LazymigError):
    """The store's fault.

    Attributes:
        retryable: Whether trying the same again can help.
        is_unchanged: Whether it is certain that nothing was changed.
    """

    retryable = False
    is_unchanged = False


class StoreUnavailableError(StoreError):
    """The store did not answer, is busy, or its disk failed or is full; the operation may be tried again."""

    retryable = True


class StoreClosedError(StoreError):
    """The store was used before it was opened or after it was closed."""

    def __init__(self, store: str) -> None:
        self.store = store
        super().__init__(f"the store {store} is closed. Use it inside 'async with open_store(…) as store:'.")


class StoreLayoutError(StoreError):
    """The file is no store of lazymig, or of a newer layout than this release reads; it was not touched."""


class StoreMissingError(StoreError):
    """The store's file isn't there, and was not to be made, or its folder isn't there, or it is one itself."""


class StoreReadOnlyError(StoreError):
    """The store can't be written."""


class InvalidStoreUrlError(StoreError, ValueError):
    """The URL names no store.

    Attributes:
        url: What was given, with its password hidden.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        super().__init__(
            f"{url!r} names no store: {reason}. Use memory:, sqlite:///relative.db or sqlite:////absolute.db "
            f"(?synchronous=normal), or postgresql://user@host/database (?schema=…)."
        )


class ConfigurationError(LazymigError):
    """A setting of the command line is missing or wrong."""
