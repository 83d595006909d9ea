"""What commands share: their common options, an open store, and which actor types there are."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from lazymig._inspection import inspect
from lazymig.cli._output import FOUND, USAGE, Refusal, code_of, suggest
from lazymig.errors import InvalidStoreUrlError, StoreError, StoreMissingError
from lazymig.stores import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from lazymig._records import ActorKey, ActorRecord
    from lazymig.cli._settings import Settings
    from lazymig.store import Store

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")


def output_options(function: F) -> F:
    """Add the flags that every command has; `Output` reads them."""
    for option in (
        click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."),
        click.option("--json", is_flag=True, expose_value=False, help="One JSON document on stdout, errors included."),
    ):
        function = option(function)
    return function


def common_options(function: F) -> F:
    """Add what every command has that works on one store."""
    return click.option("--store", metavar="URL", help="sqlite:///file.db or postgresql://… [LAZYMIG_STORE]")(
        output_options(function)
    )


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's work; Ctrl-C cancels it.

    The loop is made first: a Ctrl-C meanwhile would find a coroutine that is never awaited, and complain of that.
    """
    with asyncio.Runner() as runner:
        runner.get_loop()
        return runner.run(work())


class Unopened(Refusal):
    """Ends a command whose store is there, and can't be opened."""


@asynccontextmanager
async def opened(settings: Settings, *, create: bool = False, read_only: bool = False) -> AsyncIterator[Store]:
    """Open the configured store; unless told so, one that isn't there is not made.

    Raises:
        Refusal: None is configured, or what is names none that is there.
        Unopened: It can't be opened.
    """
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(
                open_store(settings.require_store(), create=create, read_only=read_only)
            )
        except (InvalidStoreUrlError, StoreMissingError) as error:
            raise Refusal(code_of(error), str(error), USAGE) from error
        except StoreError as error:
            raise Unopened(code_of(error), str(error), FOUND) from error
        yield store


async def find_actor(store: Store, key: ActorKey, settings: Settings) -> ActorRecord:
    """Return an actor as stored.

    Raises:
        Refusal: It isn't stored, or neither the store nor a suite has its type.
        CorruptStateError: It can't be read.
    """
    record = await inspect(store, key)
    if record is not None:
        return record
    await check_known(store, key.type, settings)
    raise Refusal("unknown_actor", f"{key} is not stored in {store.name}. Check the id.", FOUND)


class Family(click.Group):
    """A command with subcommands: suggests one, as the tool does a command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand, or suggest one."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            raise click.UsageError(f"there is no command '{self.name} {name}'.{suggest(name, self.commands)}", ctx)
        return super().resolve_command(ctx, args)


def pass_store_on(context: click.Context, store: str | None) -> None:
    """Let subcommands have the store that was given before them."""
    context.default_map = {name: {"store": store} for name in cast("Family", context.command).commands}


async def known_types(store: Store, settings: Settings) -> set[str]:
    """Return the types that the store, a node or a suite has."""
    from lazymig.cli._suites import load_types  # noqa: PLC0415  (imports users' modules)

    offered = {offer.type for node in await store.nodes() for offer in node.offers}
    return {*await store.types(), *offered, *load_types(settings)}


async def check_known(store: Store, actor_type: str, settings: Settings) -> None:
    """Refuse a type that neither the store nor a suite has.

    Raises:
        Refusal: It is unknown.
    """
    stored = await store.types()
    if actor_type in stored:
        return
    from lazymig.cli._suites import load_types  # noqa: PLC0415  (what is stored is shown without the suites)

    types = load_types(settings)
    if actor_type not in types:
        raise unknown_type(actor_type, [*stored, *types])


def unknown_type(actor_type: str, known: list[str], status: int = USAGE) -> Refusal:
    """Return the refusal of a type that nobody has."""
    names = ", ".join(sorted(set(known))) or "none"
    return Refusal(
        "unknown_actor_type",
        f"neither a suite nor the store has an actor type {actor_type!r}; known: {names}."
        f"{suggest(actor_type, known) or ' Correct the name, or add its suite to [tool.lazymig] in pyproject.toml.'}",
        status,
    )
