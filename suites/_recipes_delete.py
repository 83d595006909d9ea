"""Delete a field: contacts lose their fax number, first from sight, then for good.

======= ============ ======================================= ==========================================================
Release Supports     Does                                    Before it is deployed
======= ============ ======================================= ==========================================================
1       1.0.0        uses the fax number
2       2.0.0        puts the number aside and uses it no    ``lazymig rollout pin Contact 1.0.0``
                     more; `down` takes it back
3       2.1.0        drops it: there is no way back to       ``lazymig rollout flip Contact 2.0.0``, which says no as
                     release 1                               long as a node of release 1 is there; then, as 2.1.0 has
                                                             no `down`, ``lazymig rollout unpin Contact``
4       2.1.0, its   has the migrations no more              ``lazymig sweep Contact``, and
        baseline                                             ``lazymig gate retire Contact 2.1.0``
======= ============ ======================================= ==========================================================

Release 2 is a major step, as release 1 can't work without the field. Until the flip, and after another pin too, release
1 may come back and finds each number as it was. To rename a field is the same with two releases: put the value where
it shall stay, and leave release 3 out.
"""

from __future__ import annotations

from typing import Any, ClassVar

from lazymig import Activation, Actor, Suite, action
from suites._recipes_releases import Recipe, at, retired

suite = Suite("contacts")


class Contact2(Actor):
    """Releases 2 and on: a contact has a name."""

    default: ClassVar[dict[str, Any]] = {"name": ""}

    def __init__(self, activation: Activation) -> None:
        self.state = activation.state()

    async def activate(self) -> None:
        """Bring the state up."""
        await self.state.migrate_and_load(default=self.default)

    @action
    async def rename(self, name: str) -> None:
        """Change the name."""
        self.state.value["name"] = name
        await self.state.persist()

    @action(shared=True)
    async def name(self) -> str:
        """Return the name."""
        name: str = self.state.value["name"]
        return name


class Contact1(Contact2):
    """Release 1: and a fax number."""

    default: ClassVar[dict[str, Any]] = {**Contact2.default, "fax": None}

    @action
    async def set_fax(self, number: str | None) -> None:
        """Change the fax number."""
        self.state.value["fax"] = number
        await self.state.persist()

    @action(shared=True)
    async def fax(self) -> str | None:
        """Return the fax number."""
        number: str | None = self.state.value["fax"]
        return number


contact = suite.actor_type("Contact", Contact2, state="contact")


@contact.migration("1.0.0")
def begin(state: dict[str, Any], context: object) -> None:
    """Every contact has a fax number, if only None."""
    state.setdefault("fax", None)


@contact.migration("2.0.0")
def fax_aside(state: dict[str, Any], context: object) -> None:
    """Put the fax number aside."""
    state["removed"] = {"fax": state.pop("fax")}


@fax_aside.down
def fax_back(state: dict[str, Any], context: object) -> None:
    """Take it back; a contact that release 2 made has none."""
    state["fax"] = state.pop("removed", {}).get("fax")


@fax_aside.reconcile
def as_stored(state: dict[str, Any], base: dict[str, Any], context: object) -> None:
    """Nothing to mend: the number that release 1 stored is the newest."""


@contact.migration("2.1.0")
def fax_gone(state: dict[str, Any], context: object) -> None:
    """Drop what was put aside."""
    state.pop("removed", None)


DELETE_A_FIELD = Recipe(
    "Contact",
    suite,
    (
        at(suite, "1.0.0", Contact1),
        at(suite, "2.0.0", Contact2),
        at(suite, "2.1.0", Contact2),
        retired(suite, Contact2, "2.1.0"),
    ),
)
