"""Each reason of a gate: a fleet that gives it alone, and the one that doesn't once the cure was done."""

from __future__ import annotations

from typing import NamedTuple

from tests.worlds import An, World, node

OLD, MINOR, NEW = "1.0.0", "1.0.0 1.1.0", "1.0.0 1.1.0 2.0.0"
HOTFIX = "1.0.0 1.0.1 1.1.0"


class Case(NamedTuple):
    code: str
    question: str
    version: str | None
    broken: World
    mended: World
    nodes: tuple[str, ...] = ()
    total: int = 0
    says: str = ""


NO_WAY = {"2.0.0": "2.0.0 (many_drivers)"}
ALL_NEW = (node("a", NEW), node("b", NEW))

CASES = [
    # --- pin
    Case(
        "not_supported",
        "pin",
        "1.1.0",
        World((node("a", OLD), node("b", NEW))),
        World((node("b", NEW),)),
        nodes=("A",),
        says="by node a (A): it supports 1.0.0 only. Deploy a release there that supports it, or",
    ),
    Case(
        "cannot_store",
        "pin",
        "1.0.0",
        World((node("a", NEW, one_way=NO_WAY), node("b", NEW, one_way=NO_WAY))),
        World((node("a", NEW), node("b", NEW, one_way={"1.0.0": "1.0.0 (below the pin)"}))),
        nodes=("A", "B"),
        says="a (A), b (B): each has no way down: 2.0.0 (many_drivers). Deploy a release there that can, or",
    ),
    Case(
        "cannot_store",
        "pin",
        "0.0.0",
        World((node("a", NEW),)),
        World((node("a", OLD),)),
        nodes=("A",),
        says="more than one major",
    ),
    Case(
        "cannot_store",
        "pin",
        "1.0.0",
        World((node("a", "<=1.1.0 2.0.0"),)),
        World((node("a", "<=1.0.0 1.1.0"),)),
        nodes=("A",),
        says="begins with the baseline 1.1.0",
    ),
    Case(
        "above_write_version",
        "pin",
        "2.0.0",
        World(ALL_NEW, written="1.0.0"),
        World(ALL_NEW),
        says="'lazymig rollout flip Vehicle 2.0.0'",
    ),
    Case(
        "unreadable_nodes",
        "pin",
        "1.0.0",
        World(unreadable=("X",)),
        World(),
        nodes=("X",),
        says="'lazymig nodes forget X'",
    ),
    # --- unpin
    Case(
        "cannot_read",
        "unpin",
        None,
        World((node("a", OLD), node("b", NEW)), written="1.0.0"),
        World(ALL_NEW, written="1.0.0"),
        nodes=("A",),
        says="stored at 2.0.0 by node b (B), which can't be read by: node a (A). Deploy",
    ),
    Case(  # the older would store below the other's baseline
        "cannot_read",
        "unpin",
        None,
        World((node("a", OLD), node("b", "<=1.1.0 1.2.0")), written="1.1.0"),
        World((node("a", MINOR), node("b", "<=1.1.0 1.2.0")), written="1.1.0"),
        nodes=("B",),
        says="stored at 1.0.0 by node a (A), below the baseline of: node b (B). Deploy",
    ),
    Case(
        "late_without_consent",
        "unpin",
        None,
        World((node("a", MINOR), node("b", HOTFIX)), written="1.0.0"),
        World((node("a", MINOR), node("b", HOTFIX, late="1.0.1")), written="1.0.0"),
        nodes=("A",),
    ),
    Case(
        "unreadable_nodes",
        "unpin",
        None,
        World(ALL_NEW, written="1.0.0", unreadable=("X",)),
        World(ALL_NEW, written="1.0.0"),
        nodes=("X",),
    ),
    # --- flip
    Case(
        "not_supported",
        "flip",
        "2.0.0",
        World((node("a", MINOR), node("b", NEW)), written="1.0.0"),
        World(ALL_NEW, written="1.0.0"),
        nodes=("A",),
        says="supports 1.1.0 only",
    ),
    Case(
        "cannot_store",
        "flip",
        "1.1.0",
        World((node("a", NEW, one_way=NO_WAY),)),
        World((node("a", MINOR),)),
        nodes=("A",),
    ),
    Case(
        "below_write_version",
        "flip",
        "1.0.0",
        World(ALL_NEW, written="2.0.0"),
        World(ALL_NEW),
        says="'lazymig rollout pin Vehicle 1.0.0'",
    ),
    Case(
        "silent_nodes",
        "flip",
        "2.0.0",
        World((node("a", NEW, alive=False), node("b", NEW))),
        World(ALL_NEW),
        nodes=("A",),
        says="'lazymig nodes forget A' lets nothing of it be stored any more; any living node does that after",
    ),
    Case(
        "unknown_version",
        "flip",
        "1.0.1",
        World(ALL_NEW),
        World(ALL_NEW, releases=("1.0.0 1.0.1",)),
        says="has, or had, 1.0.1. Known are: 1.0.0, 1.1.0, 2.0.0.",
    ),
    Case(
        "late_without_consent",
        "flip",
        "1.1.0",
        World((node("a", "1.0.0 1.0.1 1.1.0"),), (An(MINOR), An("1.0.0 1.0.1 1.1.0"))),
        World((node("a", "1.0.0 1.0.1 1.1.0", late="1.0.1"),), (An(MINOR),)),
        total=1,
        says="stored at a later version, but without 1.0.1: 1 actor, 'car-1'. Register 1.0.1 with late=True",
    ),
    Case(
        "late_without_consent",
        "flip",
        "2.0.0",
        World((node("a", "1.0.0 1.1.0 2.0.0"),), (An(OLD, base="1.0.0 2.0.0"),), "1.0.0"),
        World((node("a", "1.0.0 1.1.0 2.0.0"),), (An(OLD, base=NEW),), "1.0.0"),
        total=1,
        says="kept as a base at a later version",
    ),
    Case(  # what a node stores
        "late_without_consent",
        "flip",
        "1.1.0",
        World((node("a", MINOR), node("b", HOTFIX))),
        World((node("a", HOTFIX), node("b", HOTFIX))),
        nodes=("A",),
        says="storing at a later version, but without 1.0.1: node a (A). Register 1.0.1 with late=True",
    ),
    Case(
        "late_without_consent",
        "flip",
        "1.1.0",
        World((node("a", HOTFIX),), (An(HOTFIX, entries=(HOTFIX, MINOR)), An(HOTFIX, entries=(HOTFIX, OLD)))),
        World((node("a", HOTFIX),), (An(HOTFIX, entries=(HOTFIX, OLD)),)),
        total=1,
        says="with entries at a later version, but without 1.0.1",
    ),
    Case("unreadable_nodes", "flip", "2.0.0", World(ALL_NEW, unreadable=("X", "Y")), World(ALL_NEW), nodes=("X", "Y")),
    # --- retire
    Case("unknown_version", "retire", "1.1.0", World(), World(ALL_NEW), says="Known are: none."),
    Case(
        "actors_lack",
        "retire",
        "1.1.0",
        World(ALL_NEW, (An(OLD), An(NEW), An(), An("1.0.0 2.0.0"), An("<=1.5.0"))),
        World(ALL_NEW, (An(NEW), An("<=1.5.0"))),
        total=3,
        says="stored without 1.1.0: 3 actors, 'car-1', 'car-3', 'car-4'. Let software that has it activate them. One "
        "without a main state keeps its version until",
    ),
    Case(
        "entries_lack",
        "retire",
        "1.1.0",
        World(ALL_NEW, (An(NEW, entries=(NEW, OLD)),)),
        World(ALL_NEW, (An(NEW, entries=(NEW, MINOR)),)),
        total=1,
        says="with entries without 1.1.0: 1 actor, 'car-1'.",
    ),
    Case(
        "entries_lack",
        "retire",
        "1.1.0",
        World(ALL_NEW, (An(NEW, entries=(OLD, "1.0.0 2.0.0")),)),
        World(ALL_NEW, (An(NEW, entries=("<=2.0.0",)),)),
        total=1,
    ),
    Case(
        "bases_lack",
        "retire",
        "1.1.0",
        World(ALL_NEW, (An(MINOR, base="1.0.0 2.0.0"),)),
        World(ALL_NEW, (An(MINOR, base=NEW),)),
        total=1,
    ),
    Case(
        "actors_drifted",
        "retire",
        "1.1.0",
        World(ALL_NEW, (An(MINOR, writer=OLD, base=MINOR),)),
        World(ALL_NEW, (An(MINOR, writer=OLD), An(MINOR, writer=MINOR, base=NEW))),
        total=1,
        says="reconcile is still to come",
    ),
    Case(
        "nodes_lack",
        "retire",
        "1.1.0",
        World((node("a", "1.0.0 2.0.0"), node("b", NEW)), (An(NEW),)),
        World((node("b", NEW),), (An(NEW),)),
        nodes=("A",),
        says="of a release without 1.1.0: node a (A). ",
    ),
    Case(
        "write_version_below",
        "retire",
        "1.1.0",
        World(ALL_NEW, written="1.0.0"),
        World(ALL_NEW, written="1.1.0"),
        says="'lazymig rollout flip Vehicle 1.1.0' comes first.",
    ),
    Case("unreadable_nodes", "retire", "1.1.0", World(ALL_NEW, unreadable=("X",)), World(ALL_NEW), nodes=("X",)),
]
