"""Users: a profile, and logins that were split off from it with the help of a place lookup."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from lazymig import Activation, Actor, State, Suite, action

suite = Suite("accounts")


@dataclass
class Profile:
    """The main state: who somebody is, changed rarely."""

    name: str
    city: str
    language: str = "en"


@dataclass
class Logins:
    """The other state, changed at every login: times are ISO 8601 in UTC."""

    last: str | None = None
    failed: int = 0


class Places(Protocol):
    """A resource outside the actor, in earnest a service across the network."""

    async def utc_offset(self, city: str) -> timedelta:
        """Return by how much local time in a city is ahead of UTC.

        Raises:
            LookupError: No such city.
        """
        ...


@dataclass
class Atlas:
    """The places of this example: a few cities, and no summer time."""

    hours: dict[str, float] = field(default_factory=lambda: {"Lisbon": 0, "Utrecht": 1, "Delhi": 5.5, "Lima": -5})

    async def utc_offset(self, city: str) -> timedelta:
        """See `Places`."""
        await asyncio.sleep(0)
        return timedelta(hours=self.hours[city])


@dataclass(frozen=True)
class UserContext:
    """What migrations get besides the profile."""

    logins: State[Any]
    places: Places


class User(Actor):
    """Somebody with an account; a new one is without name until renamed."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.profile = activation.state(type=Profile)
        self.logins = activation.state("logins", type=Logins)

    async def activate(self) -> None:
        """Bring both states up: the first call runs the migrations, the second finds them done."""
        await self.profile.migrate_and_load(default=Profile(name="", city="Lisbon"))
        await self.logins.migrate_and_load(default=Logins())

    @action
    async def rename(self, name: str) -> None:
        """Change the name."""
        self.profile.value.name = name
        await self.profile.persist()

    @action
    async def log_in(self, at: str, *, succeeded: bool = True) -> int:
        """Note a login and return how many failed since the last good one."""
        logins = self.logins.value
        if succeeded:
            logins.last, logins.failed = at, 0
        else:
            logins.failed += 1
        await self.activation.persist()
        return logins.failed

    @action(shared=True)
    async def summary(self) -> dict[str, Any]:
        """Return name and last login."""
        return {"name": self.profile.value.name, "last_login": self.logins.value.last}


user = suite.actor_type(
    "User",
    User,
    state="profile",
    context_factory=lambda activation: UserContext(logins=activation.state("logins"), places=Atlas()),
)


@user.migration("1.0.0")
def one_name(state: dict[str, Any], context: UserContext) -> None:
    """One name instead of first and last name, which not everybody has."""
    names = (state.pop("first_name", None), state.pop("last_name", None))
    state["name"] = " ".join(name for name in names if name)


@user.migration("1.1.0")
def language(state: dict[str, Any], context: UserContext) -> None:
    """Add a language, at first English."""
    state.setdefault("language", "en")


@user.migration("2.0.0")
async def logins_apart(state: dict[str, Any], context: UserContext) -> None:
    """Logins become a state of their own, in UTC instead of the city's local time."""
    logins = await context.logins.migrate_and_load(default={"last": None, "failed": 0})
    logins["failed"] = state.pop("failed_logins", 0)
    local = state.pop("last_login", None)
    if local is not None:
        at = datetime.fromisoformat(local)
        offset = await context.places.utc_offset(state["city"])
        logins["last"] = (at - offset).replace(tzinfo=UTC).isoformat()


@logins_apart.down
async def logins_back(state: dict[str, Any], context: UserContext) -> None:
    """Put the logins back into the profile, in local time."""
    logins = await context.logins.migrate_and_load(default={"last": None, "failed": 0})
    state["failed_logins"] = logins["failed"]
    state["last_login"] = None
    if logins["last"] is not None:
        at = datetime.fromisoformat(logins["last"]).replace(tzinfo=None)
        offset = await context.places.utc_offset(state["city"])
        state["last_login"] = (at + offset).isoformat()
    await context.logins.clear()
