"""Where a deploy is, and what is said to be safe next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lazymig import _version
from lazymig.rollout._phases import Deploy, Step
from tests.gate_cases import ALL_NEW, MINOR, NEW, NO_WAY, OLD
from tests.worlds import TYPE, An, World, ask, node

MIXED = (node("a", OLD), node("b", NEW))


def look(world: World) -> tuple[int, Step]:
    deploy = Deploy(TYPE, world.facts())
    gates = {
        one.question: ask(world, one.question, None if one.version is None else str(_version.unpack(one.version)))
        for one in deploy.questions()
    }
    return deploy.phase, deploy.next_step(gates)


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
        (World((), (An(OLD),)), 4, None),
        (World(ALL_NEW, (An(OLD),), written="1.0.0"), 2, "lazymig rollout flip Vehicle 2.0.0"),
        (
            World((node("a", "1.0.0 1.0.1 2.0.0"),), (An("1.0.0 1.1.0"),), written="1.1.0"),
            2,
            "lazymig gate flip Vehicle 2.0.0",
        ),
        (World(ALL_NEW, (An(OLD),), written="2.0.0"), 3, "lazymig census Vehicle --below 2.0.0"),
        (World(ALL_NEW, (An(OLD),)), 3, "lazymig census Vehicle --below 2.0.0"),
        (World(ALL_NEW, (An(NEW), An())), 3, "lazymig census Vehicle --below 2.0.0"),
        (World(ALL_NEW, (An(NEW, entries=(OLD,)),)), 3, "lazymig census Vehicle --below 2.0.0"),
        (World(ALL_NEW, (An(NEW, writer=MINOR, base=NEW),)), 3, "lazymig census Vehicle --below 2.0.0"),
        (World(ALL_NEW, (An(NEW, entries=(NEW,)),), written="2.0.0"), 4, "lazymig gate retire Vehicle 2.0.0"),
        (World(ALL_NEW, (An("<=2.0.0"), An(NEW + " 3.0.0"))), 4, "lazymig gate retire Vehicle 2.0.0"),
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
        (3, ["census", "Vehicle"]),
        (4, ["gate", "retire"]),
        (4, None),
    ]


def test_what_may_come_next_is_asked() -> None:
    def asked(world: World) -> list[str]:
        return [f"{one.question} {one}" for one in Deploy(TYPE, world.facts()).questions()]

    assert asked(World(ALL_NEW, releases=(OLD, MINOR, NEW))) == ["pin 1.1.0", "retire 2.0.0", "roll_back 1.1.0"]
    assert asked(World(MIXED, releases=(MINOR,))) == ["pin 1.0.0", "retire 2.0.0", "roll_back 1.1.0"]
    assert asked(World(MIXED, written="1.0.0")) == ["flip 2.0.0", "unpin 0.0.0", "retire 2.0.0", "roll_back 1.0.0"]
    assert asked(World()) == []
    three = (node("a", MINOR), node("b", OLD), node("c", NEW))
    assert asked(World(three)) == ["pin 1.0.0", "retire 2.0.0", "roll_back 1.1.0"]
    at_target = World(ALL_NEW, written="2.0.0", releases=(OLD,))
    assert asked(at_target) == ["pin 1.0.0", "unpin 0.0.0", "retire 2.0.0", "roll_back 1.0.0"]
