"""What a node knows of the others: who can do what, and what refusals taught.

The list of nodes is read anew only when the store's counter of changes has moved. What a refusal taught is kept per
actor type: the next call on such an actor goes to a capable node at once, as long as there is one.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazymig._fleet_records import NodeStatus
    from lazymig.store import Store


class FleetView:
    """One node's view of the fleet.

    Args:
        store: Where the nodes are registered.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nodes: Sequence[NodeStatus] = ()
        self._counter: int | None = None
        self._needs: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._turns = count()

    @property
    def nodes(self) -> Sequence[NodeStatus]:
        """All registered nodes, when last read."""
        return self._nodes

    async def follow(self, counter: int) -> bool:
        """Read the nodes if they have changed; tell whether they had."""
        if counter == self._counter:
            return False
        await self.read()
        self._counter = counter
        return True

    async def read(self) -> None:
        """Read the nodes."""
        self._nodes = await self._store.nodes()
        self._newest = {}
        for node in self._nodes:
            for offer in () if node.is_draining else node.offers:
                self._newest[offer.type] = max(self._newest.get(offer.type, 0), offer.registered.highest)

    def learn(self, actor_type: str, needs: int) -> None:
        """Note that actors of a type are stored at such a version (packed)."""
        self._needs[actor_type] = max(self._needs.get(actor_type, 0), needs)

    def unlearn(self, actor_type: str) -> None:
        """Forget what was learned: nobody took a call that was sent for it, and the next refusal teaches it anew."""
        self._needs.pop(actor_type, None)

    def needs(self, actor_type: str, below: int) -> int:
        """Return the version that the actors of a type may need, if software up to ``below`` can't read it; else 0."""
        known = self._needs.get(actor_type, 0)
        return known if known >= below and self.capable(actor_type, known) else 0

    def capable(self, actor_type: str, needs: int) -> tuple[str, ...]:
        """Return the nodes, not draining, that can read actors of a type at a version (packed)."""
        return tuple(
            node.node_id
            for node in self._nodes
            if not node.is_draining and (offer := node.offer(actor_type)) is not None and offer.can_read(needs)
        )

    def has_newer(self, actor_type: str, registered: int) -> bool:
        """Tell whether a node registers more for a type."""
        return self._newest.get(actor_type, 0) > registered

    def newest(self, actor_type: str, action: str) -> str | None:
        """Return a node that registers most for a type and has the action; those there are take turns."""
        highest = self._newest.get(actor_type, 0)
        fitting = [
            node.node_id
            for node in self._nodes
            if not node.is_draining
            and (offer := node.offer(actor_type)) is not None
            and offer.registered.highest == highest
            and action in offer.actions
        ]
        return fitting[next(self._turns) % len(fitting)] if fitting else None

    def types(self) -> set[str]:
        """Return the actor types that anybody has."""
        return {offer.type for node in self._nodes for offer in node.offers}

    def actions(self, actor_type: str) -> set[str]:
        """Return the actions of a type that anybody has."""
        offers = (node.offer(actor_type) for node in self._nodes)
        return {name for offer in offers if offer is not None for name in offer.actions}
