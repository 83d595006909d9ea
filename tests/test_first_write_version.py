"""What is asked when a node starts, by hand: of the write version."""

from __future__ import annotations

from typing import Any

import pytest

from lazymig import Suite, errors
from lazymig._bases import WritePolicy
from lazymig._calls import offers_of
from lazymig._fleet_records import Offer
from tests.facts import Stored, applied, car, other, seen, v

PINNED = WritePolicy(v("1.0.0"), 1)


def test_a_node_that_can_store_the_write_version_starts() -> None:
    ruled = Stored(policy=PINNED).start(car("1.0.0", "1.1.0", "2.0.0", write="1.1.0"))

    assert ruled.policies == {}


def test_a_node_below_the_write_version_starts() -> None:
    ruled = Stored(policy=WritePolicy(v("2.0.0"), 3)).start(car("1.0.0", down=False))

    assert ruled.policies == {}


def test_a_node_more_than_one_major_above_the_write_version_does_not_start() -> None:
    stored = Stored(seen("1.0.0", "2.0.0", "3.0.0"), policy=PINNED)

    with pytest.raises(errors.WriteVersionError) as caught:  # though its set was seen before
        stored.start(car("1.0.0", "2.0.0", "3.0.0"))
    assert (caught.value.actor_type, str(caught.value.write_version), caught.value.nodes) == ("Car", "1.0.0", ())
    assert str(caught.value) == (
        "the write version of Car is 1.0.0, and this node can't store it so: it supports 3.0.0, more than one major "
        "version above. Give it what it lacks, start a release that is nearer, or change the write version first."
    )


def test_a_node_that_lacks_ways_down_names_each() -> None:
    made = Suite("fleet").actor_type("Car")
    for number in ("1.0.0", "1.1.0", "2.0.0"):

        def step(state: Any, context: Any) -> None: ...

        migration = made.migration(number)(step)
        migration.entries("log")(step)
        if number == "1.1.0":
            migration.down(step)

    assert [what for _, what in made.chain.one_way] == [
        "1.0.0 (step) has no down", "1.0.0 (step) has no down for the entries of table 'log'",
        "1.1.0 (step) has no down for the entries of table 'log'",
        "2.0.0 (step) has no down", "2.0.0 (step) has no down for the entries of table 'log'",
    ]  # fmt: skip
    with pytest.raises(errors.WriteVersionError) as caught:
        Stored(policy=PINNED).start(made)
    assert caught.value.reason == (
        "it has no way down: 1.1.0 (step) has no down for the entries of table 'log', 2.0.0 (step) has no down, "
        "2.0.0 (step) has no down for the entries of table 'log'"
    )
    made.migrations[1].conversions["log"].down(lambda entry, context: None)
    made.migrations[2].conversions["log"].down(lambda entry, context: None)
    made.migrations[2].down(lambda state, context: None)
    Stored(policy=PINNED).start(made)


@pytest.mark.parametrize("write", ["0.0.0", "1.0.0", "1.1.0"])
def test_a_first_write_version_is_set_where_there_never_was_one(write: str) -> None:
    assert Stored().start(car("1.0.0", "1.1.0", write=write)).policies == {"Car": v(write)}


@pytest.mark.parametrize("policy", [PINNED, WritePolicy(None, 1), WritePolicy(v("1.1.0"), 9)])
def test_a_write_version_that_somebody_set_or_took_away_stays(policy: WritePolicy) -> None:
    blind = Stored(policy=policy, unreadable=["n7"], nodes=[other("n2", Offer("Car", applied()))])

    assert blind.start(car("1.0.0", "1.1.0", write="0.0.0")).policies == {}


def test_a_first_write_version_needs_a_node_that_can_store_it() -> None:
    with pytest.raises(errors.WriteVersionError, match=r"2\.0\.0 \(step\) has no down") as caught:
        Stored().start(car("1.0.0", "2.0.0", down=False, write="1.0.0"))
    assert caught.value.nodes == ()


def test_a_first_write_version_needs_every_node_of_the_type() -> None:
    (able,) = offers_of({"Car": car("1.0.0", "1.1.0")})
    low = Offer("Car", applied("0.9.0"))
    far = Offer("Car", applied("1.0.0", "3.0.0"))
    stored = Stored(
        nodes=[
            other("n2", able), other("n3", low), other("n4", far, is_alive=False), other("n5", Offer("Bus", applied())),
        ],
        unreadable=["n6"],
    )  # fmt: skip

    with pytest.raises(errors.WriteVersionError) as caught:
        stored.start(car("1.0.0", "1.1.0", write="1.0.0"))
    assert caught.value.nodes == ("n3", "n4", "n6")
    assert str(caught.value) == (
        "Car can't get its first write version, write_version='1.0.0': node pod n3 (n3): it supports 0.9.0 only; node "
        "pod n4 (n4): it supports 3.0.0, more than one major version above; node n6: what it registered can't be read. "
        "Replace or stop these nodes first, or leave write_version= out."
    )
    Stored(nodes=[other("n2", able), other("n5", Offer("Bus", applied()))]).start(car("1.0.0", write="1.0.0"))
