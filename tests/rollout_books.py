"""What was acknowledged of the wallets of a fleet, and what must hold of them, see `tests.rollout_plans`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from lazymig import errors
from lazymig._entries import Range
from lazymig._version import is_newer_major, pack, parse

if TYPE_CHECKING:
    from lazymig import Activation
    from lazymig._records import AppliedSet, StoredActor
    from lazymig.store import Store

HOTFIXED = "2.0.0 hotfixed"
MAIN, TABLE = "wallet", "payments"
NEW, NEWEST = pack(parse("2.0.0")), pack(parse("2.1.0"))


def supported(release: str) -> int:
    """Return what a release supports, packed."""
    return pack(parse(release.split(maxsplit=1)[0]))


def is_new(release: str) -> bool:
    """Tell whether wallets of a release have money."""
    return release.startswith("2")


def default(release: str) -> Any:
    """Return a new wallet of a release."""
    value: dict[str, Any] = {"name": "new"}
    if release == HOTFIXED:
        value["hot"] = True
    if is_new(release):
        value["money"] = {"amount": 0, "currency": "EUR"}
    else:
        value["amount"] = 0
    return value if release != "2.1.0" else {**value, "notes": ["new"]}


def change(release: str, value: Any, number: int) -> None:
    """Change a main state: its amount, and maybe more that older software doesn't know; without the hotfix, amiss."""
    if "money" in value:
        value["money"]["amount"] = number
        if is_new(release) and number % 2:
            value["money"]["currency"] = f"C{number}"
    else:
        value["amount"] = number
    if release == "2.1.0" and "notes" in value:
        value["notes"] = [number]
    if release != HOTFIXED:
        value.pop("hot", None)


def amount_of(value: Any) -> int:
    """Return the amount of a wallet in either shape."""
    amount: int = value["money"]["amount"] if "money" in value else value["amount"]
    return amount


def stored_amount(stored: StoredActor) -> int | None:
    """Return the amount as it is stored, None without a main state."""
    return amount_of(orjson.loads(stored.states[MAIN])) if MAIN in stored.states else None


@dataclass
class Account:
    """What a wallet has; None: nothing, or nobody can tell.

    Attributes:
        amount: Of its main state.
        currency: Lost where older software stores, unless a `reconcile` gets it back.
        notes: Likewise.
        other: Its other state.
        entries: Of its table, key to amount.
    """

    amount: int | None = None
    currency: str | None = None
    notes: Any = None
    other: int | None = None
    entries: dict[str, int] = field(default_factory=dict)

    def note(self, registered: AppliedSet, value: Any, stored: StoredActor | None) -> None:
        """Note that software has stored the main state.

        Args:
            registered: What that software has.
            value: The main state, as it had it.
            stored: The actor afterwards.
        """
        if value is None or stored is None:
            self.amount = self.currency = self.notes = None
            assert stored is None or MAIN not in stored.states
            return
        kept = kept_by(registered, stored)
        self.amount = amount_of(value)
        assert stored_amount(stored) == self.amount, f"{stored} is stored of {value}"
        self.currency = value["money"]["currency"] if kept >= NEW and "money" in value else None
        self.notes = value.get("notes") if kept >= NEWEST else None

    def note_other(self, registered: AppliedSet, stored: StoredActor | None, *, is_up: bool) -> None:
        """Note that software has stored another state only, once it had brought the wallet up, or only loaded it."""
        assert stored is not None
        assert stored_amount(stored) == self.amount, f"{stored} of {self}"
        kept = kept_by(registered, stored) if is_up or stored.base is None else 0
        if kept < NEW:
            self.currency = None
        if kept < NEWEST or registered.highest < NEWEST:
            self.notes = None


def kept_by(registered: AppliedSet, stored: StoredActor) -> int:
    """Return up to which version, packed, nothing is lost of what software has stored; 0 if it knows no currencies.

    Nor where a base is kept that is out of date: what is above the states as stored may be made anew then.
    """
    base, stamp = stored.base, stored.stamp
    if registered.highest < NEW or (base is not None and base.revision != stored.revision):
        return 0
    if base is not None:
        return base.applied.highest
    return 0 if stamp is None else stamp.applied.highest


def check_stamp(before: StoredActor | None, after: StoredActor | None, written: int | None) -> None:
    """Check that nothing came to be above the write version.

    But another state that newer software stored without a main state: nothing brings it down.
    """
    if written is None or after is None or after.stamp is None or after.stamp.applied.highest <= written:
        return
    known = 0 if before is None or before.stamp is None or is_empty(before) else before.stamp.applied.highest
    if is_empty(after) or known > written:
        return
    is_excused = bool(after.states) and MAIN not in after.states and (before is None or MAIN not in before.states)
    assert is_excused, f"stored above the write version: {before} -> {after}"


def is_empty(stored: StoredActor) -> bool:
    """Tell whether nothing is left of an actor: it counts as new, whatever its last stamp was."""
    return not stored.states and stored.marks.oldest is None


def is_promised(release: str, stored: StoredActor) -> bool:
    """Tell whether a release can read a wallet by what is stored of it."""
    if is_empty(stored):
        return True
    highest = 0 if stored.stamp is None else stored.stamp.applied.highest
    return not is_newer_major(max(highest, stored.marks.converting), supported(release))


def is_excused(error: errors.NewerStateError, stored: StoredActor, release: str) -> bool:
    """Tell whether a refusal is one of those that rollout.md names: below the write version, or a newer base."""
    has_newer_base = stored.base is not None and is_newer_major(stored.base.applied.highest, supported(release))
    return "written at" in str(error) or has_newer_base


def check_stored(release: str, applied: AppliedSet | None, value: Any, account: Account) -> None:
    """Check a main state that a release loads as stored: it has the shape of its stamp."""
    if value is None:
        return
    has_money = applied is not None and applied.highest >= NEW
    assert ("money" in value) == has_money, f"{release} reads {value} of {applied}"
    assert amount_of(value) == account.amount, f"{release} reads {value} of {account}"


def check_value(release: str, value: Any, account: Account) -> None:
    """Check a main state that a release has brought up."""
    if value is None or account.amount is None:
        assert (value is None) == (account.amount is None), f"{release} has {value} of {account}"
        return
    assert ("money" in value) == is_new(release), f"{release} has {value}"
    assert amount_of(value) == account.amount, f"{release} has {value} of {account}"
    if is_new(release) and account.currency is not None:
        assert value["money"]["currency"] == account.currency, f"{release} has {value} of {account}"
    if release == "2.1.0":
        assert "notes" in value
        assert account.notes is None or value["notes"] == account.notes, f"{release} has {value} of {account}"
    assert release != HOTFIXED or value.get("hot"), f"{release} has {value}"


async def check_entries(release: str, activation: Activation, account: Account, store: Store) -> None:
    """Check the entries that a release reads: all, unless newer software has put one that nothing brought down."""
    field_name = "money" if is_new(release) else "amount"
    try:
        found = [item async for item in activation.table(TABLE).scan()]
    except errors.NewerStateError:
        page = await store.entries(activation.key, Range(TABLE), 100, 1_000_000)
        assert any(is_newer_major(applied.highest, supported(release)) for applied in page.applied)
        return
    expected = [(key, {field_name: amount}) for key, amount in sorted(account.entries.items())]
    assert found == expected, f"{release} reads {found} instead of {expected}"
