"""Actor classes: what users derive from, and which of its methods can be called from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from lazymig.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazymig.activation import Activation

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

_MARK = "_lazymig_action"


class Actor:
    """Base of actor classes.

    The constructor gets the `Activation`; keep its states there. `activate` loads them, the actions work on them.
    An actor object lives from an activation to its end: it is made anew after every exclusive action that raised.
    """

    is_actor_class: ClassVar[bool] = True

    def __init__(self, activation: Activation) -> None:
        """Take the states from the activation; nothing can be awaited yet."""

    async def activate(self) -> None:
        """Load the states; called before the first action. If it raises, no action runs and the lock is given up."""

    async def deactivate(self) -> None:
        """Tidy up; called before the lock is given up, only on actors that activated and still hold their lock."""


@overload
def action(function: F) -> F: ...


@overload
def action(*, shared: bool = ...) -> Callable[[F], F]: ...


def action(function: Any = None, *, shared: bool = False) -> Any:
    """Make an async method of an actor class callable from outside.

    Args:
        function: The method.
        shared: It only reads and may run beside other shared actions; `persist` in it is an error. Without it one
            action at a time runs on an actor.

    Raises:
        DefinitionError: It is no async method.
    """
    if function is None:
        return lambda decorated: _mark(decorated, shared=shared)
    return _mark(function, shared=shared)


def _mark(function: Any, *, shared: bool) -> Any:
    if not iscoroutinefunction(function):
        name = getattr(function, "__name__", repr(function))
        raise DefinitionError(f"the action {name} is no async method. Write 'async def {name}'.")
    setattr(function, _MARK, shared)
    return function


@lru_cache(maxsize=1024)
def actions_of(actor_class: Any) -> Mapping[str, bool]:
    """Return the names of a class's actions, and whether each is shared."""
    found: dict[str, bool] = {}
    for parent in reversed(actor_class.__mro__):
        for name, member in vars(parent).items():
            shared = getattr(member, _MARK, None)
            if shared is None:
                found.pop(name, None)
            else:
                found[name] = shared
    return MappingProxyType(found)


def is_quiet(actor: Any) -> bool:
    """Tell whether nothing of an actor, or of none, runs when it is let go of."""
    return actor is None or type(actor).deactivate is Actor.deactivate


class Proxy:
    """Stands for an actor elsewhere: every public name is an action that can be awaited."""

    __slots__ = ("_actor_id", "_actor_type", "_call")

    def __init__(self, call: Callable[..., Awaitable[Any]], actor_type: str, actor_id: str) -> None:
        self._call = call
        self._actor_type = actor_type
        self._actor_id = actor_id

    def __repr__(self) -> str:
        """Show the actor."""
        return f"<proxy of {self._actor_type} {self._actor_id!r}>"

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return the action of that name; whether it exists shows when it is called."""
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no attribute {name!r}: only actions can be called through it")
        return partial(self._call, self._actor_type, self._actor_id, name)
