"""Where a deploy is, and what is said to be safe next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lazymig import _version
from lazymig.rollout._phases import Deploy, Step
from tests.gate_cases import ALL_NEW, MINOR, NEW, NO_WAY, OLD
from tests.worlds import TYPE, An, World, applied, ask, node

if TYPE_CHECKING:
    from lazymig.rollout import Gate

MIXED = (node("a", OLD), node("b", NEW))


def ask_all(world: World) -> tuple[Deploy, list[str], list[Gate]]:
    """Return a deploy, what it asks, and the gates that it shows."""
    deploy = Deploy(TYPE, world.facts())
    asking, questions, gate = deploy.asking(), [], None
    try:
        while True:
            one = asking.send(gate)  # type: ignore[arg-type]  # None starts it
            questions.append(f"{one.question} {one}")
            gate = ask(world, one.question, None if one.version is None else str(_version.unpack(one.version)))
    except StopIteration as end:
        return deploy, questions, end.value


def look(world: World) -> tuple[int, Step]:
    deploy, _, gates = ask_all(world)
    return deploy.phase(gates), deploy.next_step(gates)


@pytest.mark.parametrize(
    ("world", "phase", "command"),
    [
        (World(MIXED), 1, "lazymig rollout pin Vehicle 1.0.0"),
        (World((node("a", OLD), node("b", NEW, one_way=NO_WAY))), 1, "lazymig gate pin Vehicle 1.0.0"),
        (World(MIXED, written="1.0.0"), 1, "lazymig nodes drain A"),
        (World((node("a", OLD), node("b", MINOR))), 1, "lazymig nodes drain A"),
        (World((node("a", OLD, alive=False), node("b", NEW)), written="1.0.0"), 1, "lazymig nodes forget A"),
        (World((node("a", OLD),), written="1.1.0", releases=(OLD, MINOR)), 1, "lazymig rollout pin Vehicle 1.0.0"),
        (World(ALL_NEW, unreadable=("X", "Y")), 1, "lazymig nodes forget X"),
        (World((node("a", "<=2.0.0"), node("b", NEW)), (An(NEW),)), 4, "lazymig gate retire Vehicle 2.0.0"),
        (World(written="1.0.0", releases=(OLD, NEW)), 1, None),
        (World((), (An(OLD),)), 1, None),
        (World(), 4, None),
        (World(ALL_NEW, (An(OLD),), written="1.0.0"), 2, "lazymig rollout flip Vehicle 2.0.0"),
        (
            World((node("a", "1.0.0 1.0.1 2.0.0"),), (An("1.0.0 1.1.0"),), written="1.1.0"),
            2,
            "lazymig gate flip Vehicle 2.0.0",
        ),
        (World(ALL_NEW, (An(OLD),), written="2.0.0"), 3, "lazymig sweep Vehicle"),
        (World(ALL_NEW, (An(OLD),)), 3, "lazymig sweep Vehicle"),
        (World(ALL_NEW, (An(NEW), An())), 3, "lazymig sweep Vehicle"),
        (World(ALL_NEW, (An(NEW, entries=(OLD,)),)), 3, "lazymig sweep Vehicle"),
        (World(ALL_NEW, (An(NEW, entries=("1.0.0 2.0.0",)),)), 3, "lazymig sweep Vehicle"),
        (World(ALL_NEW, (An("1.0.0 2.0.0"),)), 3, "lazymig sweep Vehicle"),
        (World(ALL_NEW, (An(NEW, base="1.0.0 2.0.0"),)), 3, "lazymig sweep Vehicle"),
        (World((node("a", "1.0.0 2.0.0"), node("b", NEW)), (An(NEW),)), 3, "lazymig gate retire Vehicle 1.1.0"),
        (World(ALL_NEW, (An(NEW, writer=MINOR, base=NEW),)), 3, "lazymig sweep Vehicle"),
        (World(ALL_NEW, (An(NEW, entries=(NEW,)),), written="2.0.0"), 4, "lazymig gate retire Vehicle 2.0.0"),
        (World(ALL_NEW, (An("<=2.0.0"), An(NEW + " 2.1.0"))), 4, "lazymig gate retire Vehicle 2.0.0"),
        (World((node("a", "<=2.0.0"),), (An(NEW),)), 4, None),
        (World((node("a", ""),), (An(""),)), 4, None),
    ],
)
def test_each_phase_has_its_next_safe_command(world: World, phase: int, command: str | None) -> None:
    found, step = look(world)
    assert (found, step.command) == (phase, command)
    assert step.text.endswith(".")


def test_old_nodes_that_drain_are_waited_for() -> None:
    old = replace(node("a", OLD), is_draining=True)
    assert look(World((old, node("b", NEW)), written="1.0.0")) == (1, Step("Wait until node a (A) has ended."))


def test_an_old_node_works_on_while_the_new_ones_drain() -> None:
    draining = replace(node("b", NEW), is_draining=True)
    start = Step("Start a node of 2.0.0: those that are there drain.")
    assert look(World((node("a", OLD), draining), written="1.0.0")) == (1, start)
    assert (
        look(World((node("a", OLD), draining, node("c", NEW)), written="1.0.0"))[1].command == "lazymig nodes drain A"
    )


def test_actors_that_no_node_can_read_come_first() -> None:
    newer = "Actors are stored at 2.0.0, which no node of Vehicle can read: start the newer release."
    for written in (None, "1.0.0", "2.0.0"):
        world = World((node("a", OLD), node("b", MINOR)), (An(NEW), An(OLD)), written=written, releases=(OLD, NEW))
        assert look(world) == (1, Step(newer))
    assert look(World((node("a", MINOR),), (An("1.0.0 1.1.0 1.2.0"),)))[0] == 4


def test_what_keeps_nodes_from_storing_is_told_by_what_they_can_read() -> None:
    step = look(World((node("a", OLD),), written="1.1.0", releases=(OLD, MINOR)))[1]
    assert step.text == "Nodes that support 1.0.0 store nothing written at 1.1.0; a pin lets them store again."
    step = look(World((node("a", OLD),), written="2.0.0", releases=(OLD, NEW)))[1]
    assert step.text == "Nodes can't read what is stored at 2.0.0; a pin keeps it readable for all."


def test_what_is_left_to_bring_up_is_told() -> None:
    phase, step = look(World(ALL_NEW, (An(NEW, entries=(NEW, "1.0.0 2.0.0")),)))
    assert phase == 3
    assert step.text == (
        "Not all is brought up: with entries without 1.1.0: 1 actor, 'car-1'. Let software that has it store those. "
        "Or sweep them."
    )


def test_the_bound_of_entries_alone_keeps_no_deploy_in_its_third_phase() -> None:
    world = World(ALL_NEW, (An(NEW, entries=(NEW,)),))
    facts = world.facts()
    world.facts = lambda: facts._replace(oldest=1, known=facts.known | {applied(OLD)})  # type: ignore[method-assign]
    assert look(world) == (4, look(World(ALL_NEW, (An(NEW),)))[1])


def test_a_whole_deploy_is_led_from_phase_to_phase() -> None:
    world = World((node("a", OLD), node("b", OLD)), (An(OLD),), releases=(OLD,))
    seen = []
    for change in (
        {},
        {"written": "1.0.0"},
        {"nodes": (node("a", NEW), node("b", OLD)), "releases": (OLD, NEW)},
        {"nodes": ALL_NEW, "actors": (An(OLD, base=NEW),)},
        {"written": "2.0.0"},
        {"actors": (An(NEW),)},
        {"nodes": (node("a", "<=2.0.0"), node("b", "<=2.0.0"))},
    ):
        world = replace(world, **change)
        phase, step = look(world)
        seen.append((phase, None if step.command is None else step.command.split()[1:3]))
    assert seen == [
        (4, ["gate", "retire"]),
        (4, ["gate", "retire"]),
        (1, ["nodes", "drain"]),
        (2, ["rollout", "flip"]),
        (3, ["sweep", "Vehicle"]),
        (4, ["gate", "retire"]),
        (4, None),
    ]


def test_what_may_come_next_is_asked() -> None:
    def asked(world: World) -> list[str]:
        return ask_all(world)[1]

    retire = ["retire 1.0.0", "retire 1.1.0", "retire 2.0.0"]
    assert asked(World(ALL_NEW, releases=(OLD, MINOR, NEW))) == ["pin 1.1.0", *retire, "roll_back 1.1.0"]
    assert asked(World(ALL_NEW, written="2.0.0", releases=(OLD,))) == [
        "pin 1.0.0", "unpin 0.0.0", *retire, "roll_back 1.0.0",
    ]  # fmt: skip
    assert asked(World(MIXED, releases=(MINOR,))) == ["pin 1.0.0", *retire, "roll_back 1.1.0"]
    assert asked(World(MIXED, written="1.0.0")) == ["flip 2.0.0", "unpin 0.0.0", *retire, "roll_back 1.0.0"]
    assert asked(World()) == []
    three = (node("a", MINOR), node("b", OLD), node("c", NEW))
    assert asked(World(three)) == ["pin 1.0.0", *retire, "roll_back 1.1.0"]


def test_of_migrations_the_first_that_may_not_go_is_shown_and_the_last() -> None:
    def shown(world: World) -> list[tuple[str, bool]]:
        return [(str(gate.version), gate.allowed) for gate in ask_all(world)[2] if gate.question == "retire"]

    many = (node("a", "1.0.0 1.1.0 1.2.0 1.3.0 2.0.0"),)
    assert shown(World(many, (An("1.0.0"),))) == [("1.1.0", False), ("2.0.0", False)]
    assert ask_all(World(many, (An("1.0.0"),)))[1] == ["retire 1.0.0", "retire 1.1.0", "retire 2.0.0"]
    assert shown(World(many, (An("1.0.0 1.1.0 1.3.0 2.0.0"),))) == [("1.2.0", False), ("2.0.0", True)]
    assert shown(World(many, (An("<=2.0.0"),))) == [("2.0.0", True)]
