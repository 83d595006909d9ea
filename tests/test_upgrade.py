from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import ActorKey, Suite, _upgrade, errors
from lazymig._migrations import Chain
from lazymig._version import ZERO

if TYPE_CHECKING:
    from lazymig._migrations import Migration

KEY = ActorKey("Car", "a")


async def test_upgrade_runs_the_same_core_without_a_store() -> None:
    car = Suite("fleet").actor_type("Car", context={"rate": 2})

    @car.migration("1.0.0")
    def double(state: Any, context: Any) -> None:
        state["price"] *= context["rate"]

    @car.migration("2.0.0")
    async def wrap(state: Any, context: Any) -> Any:
        return {"prices": [state["price"]]}

    legacy = {"price": 3}
    upgraded = await car.upgrade(legacy)
    assert upgraded.value == {"prices": [6]}
    assert legacy == {"price": 3}
    assert [str(version) for version in upgraded.applied] == ["1.0.0", "2.0.0"]
    assert upgraded.info.migrated_at is not None
    again = await car.upgrade(upgraded.value, upgraded.info)
    assert (again.value, again.info, again.applied) == (upgraded.value, upgraded.info, ())
    assert again.value is not upgraded.value


async def test_upgrade_refuses_and_fails_as_an_activation_does() -> None:
    old, new = Suite("old").actor_type("Car"), Suite("new").actor_type("Car")
    new.migration("1.0.0")(lambda state, context: state.update(x=1))
    broken = new.migration("2.0.0")(lambda state, context: state["missing"])
    info = (await Suite("middle").actor_type("Car", baseline="1.0.0").upgrade(None)).info

    with pytest.raises(errors.NewerStateError):
        await old.upgrade({}, info)
    value: dict[str, Any] = {}
    with pytest.raises(errors.MigrationFailedError, match=r"2\.0\.0") as caught:
        await new.upgrade(value)
    assert value == {}
    assert (caught.value.version, caught.value.name) == (broken.version, "<lambda>")
    assert isinstance(caught.value.__cause__, KeyError)


async def test_upgrade_of_nothing_stamps_a_new_value() -> None:
    car = Suite("fleet").actor_type("Car")
    car.migration("1.0.0")(lambda state, context: state["missing"])

    upgraded = await car.upgrade(None)
    assert (upgraded.value, upgraded.applied, str(upgraded.info.version)) == (None, (), "1.0.0")
    assert (await Suite("x").actor_type("Bus").upgrade({})).info.version == ZERO


def steps_of(*functions: Any) -> tuple[Migration, ...]:
    chain = Chain("Car")
    for number, function in enumerate(functions, 1):
        chain.add(f"{number}.0.0", function, late=False)
    return chain.migrations


def rename(state: Any, context: Any) -> None: ...


def spoil(state: Any, context: Any) -> Any:
    return {"velocity": math.nan}


def fail(state: Any, context: Any) -> None:
    raise LookupError(context)


async def test_a_migration_that_raises_is_named_with_actor_and_cause() -> None:
    with pytest.raises(errors.MigrationFailedError, match=r"migration 2\.0\.0 \(fail\) of Car 'a' failed:") as caught:
        await _upgrade.run(steps_of(rename, fail, spoil), {}, "no wheels", KEY)

    assert (caught.value.key, str(caught.value.version), caught.value.name) == (KEY, "2.0.0", "fail")
    assert "failed: LookupError: no wheels. The stored state" in str(caught.value)
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize(
    ("functions", "named", "reason"),
    [
        ([spoil], "1.0.0", "the result of state 'car' is no JSON: $.velocity is nan"),
        ([rename, spoil], "2.0.0", "of 1.0.0, 2.0.0, the result of state 'car' is no JSON: $.velocity is nan"),
        ([spoil, rename], "2.0.0", "of 1.0.0, 2.0.0, the result of state 'car' is no JSON: $.velocity is nan"),
        (
            [spoil, rename, rename],
            "3.0.0",
            "of 1.0.0, 2.0.0, 3.0.0, the result of state 'car' is no JSON: $.velocity is nan",
        ),
    ],
)
async def test_a_result_that_is_no_json_names_the_last_migration_and_the_chain(
    functions: list[Any], named: str, reason: str
) -> None:
    steps = steps_of(*functions)
    result = await _upgrade.run(steps, {}, None, KEY)

    with pytest.raises(errors.MigrationFailedError) as caught:
        _upgrade.encode_result(result, "state 'car'", steps, KEY)

    error = caught.value
    assert (error.key, str(error.version), error.name) == (KEY, named, functions[-1].__name__)
    assert f" failed: {reason}. The stored state" in str(error)
    assert isinstance(error.__cause__, errors.InvalidValueError)
    assert error.__cause__.subject == "state 'car'"


def test_a_result_that_is_json_is_given_as_bytes() -> None:
    assert _upgrade.encode_result({"velocity": 1.5}, "state 'car'", steps_of(rename), KEY) == b'{"velocity":1.5}'


async def test_upgrade_stores_no_result_that_is_no_json() -> None:
    car = Suite("fleet").actor_type("Car")
    car.migration("1.0.0")(spoil)

    with pytest.raises(errors.MigrationFailedError, match=r"the result of the value of Car is no JSON: \$\.velocity"):
        await car.upgrade({})
