from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from semver import Version

from lazymig import Actor, Node, Suite, action, errors

if TYPE_CHECKING:
    from lazymig import ActorType
    from lazymig.store import Store


def nothing(state: Any, context: Any) -> None:
    """Do nothing.

    More about it.
    """


@pytest.fixture
def car() -> ActorType[Any]:
    return Suite("fleet").actor_type("Car")


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0-rc.1", "1.0.0+b", "1000000.0.0", None, 1])
def test_only_released_versions_are_registered(car: ActorType[Any], version: Any) -> None:
    with pytest.raises(errors.InvalidVersionError):
        car.migration(version)(nothing)

    assert car.migrations == ()


def test_a_decorator_without_version_says_how_to_write_it(car: ActorType[Any]) -> None:
    with pytest.raises(errors.InvalidVersionError, match=r"@….migration\('1.0.0'\)"):
        car.migration(nothing)  # type: ignore[arg-type]  # the slip this is about


def test_a_version_is_registered_once(car: ActorType[Any]) -> None:
    car.migration("1.0.0")(nothing)

    def another(state: Any, context: Any) -> None: ...

    with pytest.raises(errors.DuplicateMigrationError, match=r"'nothing' and 'another'\. Give 'another'") as caught:
        car.migration("1.0.0")(another)
    assert (caught.value.actor_type, caught.value.version) == ("Car", Version(1, 0, 0))


def test_order_in_the_source_is_order_of_execution(car: ActorType[Any]) -> None:
    car.migration("1.1.0")(nothing)

    with pytest.raises(errors.MigrationOrderError, match=r"Move it before 1\.1\.0") as caught:
        car.migration("1.0.1")(nothing)
    assert (caught.value.version, caught.value.previous) == (Version(1, 0, 1), Version(1, 1, 0))
    assert caught.value.actor_type == "Car"


def test_the_version_of_unmigrated_states_is_no_migration(car: ActorType[Any]) -> None:
    with pytest.raises(errors.MigrationOrderError, match=r"after the version of unmigrated states, 0\.0\.0") as caught:
        car.migration("0.0.0")(nothing)
    assert (caught.value.version, caught.value.previous) == (Version(0, 0, 0), Version(0, 0, 0))
    assert caught.value.actor_type == "Car"


def test_migrations_lie_above_the_baseline() -> None:
    car = Suite("fleet").actor_type("Car", baseline="1.1.0")

    with pytest.raises(errors.MigrationOrderError, match=r"1\.0\.9 after its baseline 1\.1\.0") as caught:
        car.migration("1.0.9")(nothing)
    assert (caught.value.version, caught.value.previous) == (Version(1, 0, 9), Version(1, 1, 0))
    assert caught.value.actor_type == "Car"
    with pytest.raises(errors.MigrationOrderError, match="baseline"):
        car.migration("1.1.0")(nothing)
    car.migration("1.1.1")(nothing)
    assert car.supported == Version(1, 1, 1)


@pytest.mark.parametrize("baseline", ["1.0", "0.0.0", "1.0.0-rc.1"])
def test_a_baseline_is_a_version_above_0_0_0(baseline: str) -> None:
    with pytest.raises(errors.DefinitionError):
        Suite("fleet").actor_type("Car", baseline=baseline)


def test_supported_is_the_highest_version_else_the_baseline_else_0_0_0() -> None:
    suite = Suite("fleet")

    assert suite.actor_type("A").supported == Version(0, 0, 0)
    assert suite.actor_type("B", baseline="1.2.3").supported == Version(1, 2, 3)


def test_a_migration_says_what_it_is_and_can_be_called(car: ActorType[Any]) -> None:
    migration = car.migration("1.0.0", late=True)(nothing)

    assert (str(migration.version), migration.name, migration.description) == ("1.0.0", "nothing", "Do nothing.")
    assert migration.late
    assert migration({}, None) is None
    assert car.migrations == (migration,)
    assert repr(migration) == "Migration('1.0.0', nothing)"


def test_a_migration_calls_the_function_with_what_it_is_given(car: ActorType[Any]) -> None:
    migration = car.migration("1.0.0")(lambda state, context: (state, context))

    assert migration("the state", "the context") == ("the state", "the context")
    assert migration.description == ""


def test_any_callable_is_a_migration_and_named_by_its_type_if_it_has_no_name(car: ActorType[Any]) -> None:
    assert car.migration("1.0.0")(partial(nothing)).name == "partial"


def test_down_and_reconcile_register_once_and_stay_functions(car: ActorType[Any]) -> None:
    migration = car.migration("1.0.0")(nothing)

    assert migration.down(nothing) is nothing
    assert migration.reconcile(nothing) is nothing
    with pytest.raises(errors.DefinitionError, match="has a down already"):
        migration.down(nothing)
    with pytest.raises(errors.DefinitionError, match="has a reconcile already"):
        migration.reconcile(nothing)


@pytest.mark.parametrize("thing", [None, "1.0.0", 1])
def test_only_functions_are_migrations(car: ActorType[Any], thing: Any) -> None:
    with pytest.raises(errors.DefinitionError, match="function"):
        car.migration("1.0.0")(thing)
    migration = car.migration("1.0.0")(nothing)
    with pytest.raises(errors.DefinitionError, match="function"):
        migration.down(thing)


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 201, None, 7])
def test_names_that_no_store_takes_are_refused(name: Any) -> None:
    with pytest.raises(errors.DefinitionError):
        Suite(name)
    with pytest.raises(errors.DefinitionError):
        Suite("fleet").actor_type(name)
    with pytest.raises(errors.DefinitionError):
        Suite("fleet").actor_type("Car", state=name)


def test_a_type_is_registered_once_and_has_one_kind_of_context() -> None:
    suite = Suite("fleet")
    suite.actor_type("Car")

    with pytest.raises(errors.DefinitionError, match="already"):
        suite.actor_type("Car")
    with pytest.raises(errors.DefinitionError, match="context_factory"):
        suite.actor_type("Bus", context=1, context_factory=lambda _: 2)
    assert list(suite.actor_types) == ["Car"]


@pytest.mark.parametrize("actor_class", [int, object(), "Car", lambda _: None])
def test_only_actor_classes_are_taken(actor_class: Any) -> None:
    with pytest.raises(errors.DefinitionError, match=r"lazymig\.Actor"):
        Suite("fleet").actor_type("Car", actor_class)


def test_actions_are_async_methods() -> None:
    with pytest.raises(errors.DefinitionError, match="async def run"):

        class Car(Actor):
            @action  # type: ignore[type-var]  # the slip this is about
            def run(self) -> None: ...


async def test_a_type_in_use_can_not_be_changed(store: Store) -> None:
    suite = Suite("fleet")
    car = suite.actor_type("Car")
    migration = car.migration("1.0.0")(nothing)
    async with Node(store, [suite]):
        pass

    with pytest.raises(errors.FrozenDefinitionError, match="Car is in use"):
        car.migration("2.0.0")(nothing)
    with pytest.raises(errors.FrozenDefinitionError):
        migration.down(nothing)
    with pytest.raises(errors.FrozenDefinitionError):
        migration.reconcile(nothing)


async def test_two_suites_of_a_node_have_different_types(store: Store) -> None:
    suites = [Suite("one"), Suite("two")]
    for suite in suites:
        suite.actor_type("Car")

    with pytest.raises(errors.DefinitionError, match="'Car'"):
        Node(store, suites)


@pytest.mark.parametrize(
    "options",
    [{"lease_seconds": 0}, {"lease_seconds": -1}, {"max_active": 0}, {"idle_seconds": -1}, {"hand_over_seconds": -0.1}],
)
async def test_a_node_refuses_numbers_out_of_range(store: Store, options: dict[str, Any]) -> None:
    with pytest.raises(errors.DefinitionError, match=next(iter(options))):
        Node(store, [], **options)
