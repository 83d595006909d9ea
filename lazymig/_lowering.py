"""States and entries brought down to an older shape, as the write version asks for it.

A `down` works on private copies, as a migration does, but beside the handles of the activation, which stay as they are:
it has an activation of its own, whose context object it gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazymig import _upgrade
from lazymig._entries import Entry
from lazymig._inspection import decode_entry, decode_state
from lazymig._running import RUNNING, Running
from lazymig.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from lazymig._entries import Place
    from lazymig._holding import Holding
    from lazymig._migrations import Chain, Migration
    from lazymig.activation import Activation
    from lazymig.state import State


class Lowering:
    """Brings the states of one actor down.

    Args:
        apart: An activation for nothing else.
        holding: What it has of the stored actor.
        states: Its handles.
    """

    def __init__(self, apart: Activation, holding: Holding, states: Mapping[str, State[Any]]) -> None:
        self._apart = apart
        self._holding = holding
        self._states = states

    async def run(self, values: Mapping[str, bytes], steps: Sequence[Migration]) -> Mapping[str, bytes]:
        """Return what `down` of migrations, in order, makes of states; as they are if there is no main state.

        Raises:
            MigrationFailedError: One raised, or its result is no JSON.
            DefinitionError: One has no `down`.
        """
        key, main = self._holding.key, self._holding.type.state
        if main not in values or not steps:
            return values
        for state in self._states.values():
            state.reset()
        self._holding.handed = values
        value = decode_state(key, main, values[main])
        context = self._apart.context
        running = Running(self._apart, is_read_only=True)
        token = RUNNING.set(running)
        try:
            for running.step in steps:
                down = running.step.downgrade
                if down is None:
                    raise DefinitionError(
                        f"migration {running.step.version} ({running.step.name}) of {key.type} has no down, which the "
                        f"write version asks for. Register one: @{running.step.name}.down."
                    )
                value = await _upgrade.call(down, value, (context,), running.step, "down", key)
        finally:
            running.is_running = False
            RUNNING.reset(token)
        made = {state.name: state.encoded_result(steps) for state in self._states.values() if state.is_loaded}
        made[main] = _upgrade.encode_result(value, self._apart.state().subject, steps, key)
        return {name: data for name, data in {**values, **made}.items() if data is not None}


async def lowered_entries(
    activation: Activation, chain: Chain, entries: Mapping[Place, Entry | None], limit: int
) -> dict[Place, Entry | None]:
    """Return entries brought down to a version, packed, those that are removed left out of it.

    Raises:
        MigrationFailedError: A `down` raised, or its result is no JSON.
        DefinitionError: There is none.
    """
    lowered: dict[Place, Entry | None] = {}
    running = Running(activation, is_conversion=True, is_read_only=True)
    token = RUNNING.set(running)
    try:
        for place, entry in entries.items():
            is_above = entry is not None and entry.applied.highest > limit
            lowered[place] = await _lowered(activation, chain, place, entry, limit) if is_above and entry else entry
    finally:
        running.is_running = False
        RUNNING.reset(token)
    return lowered


async def _lowered(activation: Activation, chain: Chain, place: Place, entry: Entry, limit: int) -> Entry:
    table, key = place[0], activation.key
    steps = [
        step.conversions[table]
        for step in reversed(chain.migrations)
        if step.packed > limit and entry.applied.has(step.packed) and table in step.conversions
    ]
    applied = entry.applied.up_to(limit)
    if not steps:
        return Entry(entry.data, applied)
    value = decode_entry(key, place, entry.data)
    for step in steps:
        if step.downgrade is None:
            raise DefinitionError(
                f"{step.name} of migration {step.migration.version} of {key.type} has no down for entries of table "
                f"{table!r}, which the write version asks for. Register one: @{step.name}.down."
            )
        value = await _upgrade.call(step.downgrade, value, (activation.context,), step.migration, "down", key)
    return Entry(_upgrade.encode_entry(value, steps, key, place), applied)
