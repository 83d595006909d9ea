"""The example suites behave as they say, on every store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from lazymig import ActorKey, Node, Suite, rollout
from lazymig.errors import MigrationFailedError, NewerStateError
from lazymig.testing import release
from lazymig.transfer import import_states
from suites import users, vehicles
from suites.users import Atlas, UserContext, user
from suites.vehicles import vehicle

if TYPE_CHECKING:
    from lazymig import ActorRecord
    from lazymig.store import Store

LEGACY_USER = {
    "first_name": "Ada",
    "last_name": "Okafor",
    "city": "Delhi",
    "last_login": "2024-03-01T04:00:00",
    "failed_logins": 2,
}


async def stored(node: Node, actor_type: str, actor_id: str) -> ActorRecord:
    record = await node.inspect(actor_type, actor_id)
    assert record is not None
    return record


# --- vehicles -------------------------------------------------------------------------------------------------------


async def test_a_legacy_vehicle_moves_on_in_metres_per_second_with_a_list_of_drivers(store: Store) -> None:
    await import_states(store, vehicle, [("car-1", {"owner": "Ada", "velocity": 90.0})])
    async with Node(store, [vehicles.suite]) as node:
        car = node.actor(vehicle, "car-1")

        assert await car.accelerate(3.0) == 28.0
        assert await car.velocity() == 28.0

        record = await stored(node, "Vehicle", "car-1")
        assert record.states == {"vehicle": {"owner": "Ada", "velocity": 28.0, "drivers": ["Ada"]}}
        assert record.info is not None
        assert [str(version) for version in record.info.applied] == ["1.0.0", "1.1.0", "2.0.0"]


async def test_a_vehicle_without_owner_has_no_drivers(store: Store) -> None:
    await import_states(store, vehicle, [("car-1", {"owner": None, "velocity": 0})])
    async with Node(store, [vehicles.suite]) as node:
        await node.actor(vehicle, "car-1").velocity()

        assert (await stored(node, "Vehicle", "car-1")).states["vehicle"]["drivers"] == []


async def test_an_unknown_vehicle_stands_still_and_is_stored_by_its_first_change(store: Store) -> None:
    async with Node(store, [vehicles.suite]) as node:
        car = node.actor(vehicle, "car-1")
        assert await car.velocity() == 0.0
        assert await node.inspect(vehicle, "car-1") is None

        await car.accelerate(1.5)

        record = await stored(node, "Vehicle", "car-1")
        assert record.states == {"vehicle": {"owner": None, "velocity": 1.5, "drivers": []}}


async def test_two_releases_share_a_vehicle_until_the_newer_one_has_had_it(store: Store) -> None:
    await import_states(store, vehicle, [("car-1", {"owner": "Ada", "velocity": 36.0})])
    async with Node(store, [release(vehicles.suite, "1.1.0")]) as old:
        await old.actor(vehicle, "car-1").accelerate(1.0)
        assert (await stored(old, "Vehicle", "car-1")).states["vehicle"]["driver"] == "Ada"

    async with Node(store, [vehicles.suite]) as new:
        await new.actor(vehicle, "car-1").accelerate(1.0)
        before = await stored(new, "Vehicle", "car-1")

    async with Node(store, [release(vehicles.suite, "1.1.0")], hand_over_seconds=0) as old:
        with pytest.raises(NewerStateError):
            await old.actor(vehicle, "car-1").accelerate(1.0)
        after = await stored(old, "Vehicle", "car-1")

    assert (after.states, after.info, after.revision) == (before.states, before.info, before.revision)
    assert after.states["vehicle"] == {"owner": "Ada", "velocity": 12.0, "drivers": ["Ada"]}


@pytest.mark.parametrize("driver", ["Ada", None])
def test_one_driver_survives_the_way_up_and_down(driver: str | None) -> None:
    state: dict[str, Any] = {"owner": "Ada", "velocity": 1.0, "driver": driver}
    before = dict(state)

    vehicles.many_drivers(state, None)
    vehicles.one_driver(state, None)

    assert state == before


async def test_more_drivers_than_one_survive_what_the_old_release_stores_under_a_pin(store: Store) -> None:
    await rollout.pin(store, vehicle, "1.1.0")
    async with Node(store, [release(vehicles.suite, "1.1.0")]) as old, Node(store, [vehicles.suite]) as new:
        for node, change in (
            (new, {"owner": "Ada", "drivers": ["Ada", "Bo"], "velocity": 1.0}),
            (old, {"velocity": 2.0}),
            (new, {"velocity": 3.0}),
            (old, {"driver": "Cy"}),
        ):
            async with node.activate("Vehicle", "car-1") as activation:
                value: Any = await activation.state().migrate_and_load(default={})
                if node is new and "drivers" not in change:
                    assert value == {"owner": "Ada", "drivers": ["Ada", "Bo"], "velocity": 2.0}
                value.update(change)
                await activation.persist()
        async with new.activate("Vehicle", "car-1") as activation:
            value = await activation.state().migrate_and_load()
            assert value == {"owner": "Ada", "drivers": ["Cy"], "velocity": 3.0}


# --- users ----------------------------------------------------------------------------------------------------------


async def test_a_legacy_user_gets_a_state_of_logins_in_utc_with_the_same_commit(store: Store) -> None:
    await import_states(store, user, [("ada", LEGACY_USER)])
    before = await store.read(ActorKey("User", "ada"))
    async with Node(store, [users.suite]) as node:
        assert await node.actor(user, "ada").summary() == {
            "name": "Ada Okafor",
            "last_login": "2024-02-29T22:30:00+00:00",
        }

        record = await stored(node, "User", "ada")
        assert record.states == {
            "profile": {"name": "Ada Okafor", "city": "Delhi", "language": "en"},
            "logins": {"last": "2024-02-29T22:30:00+00:00", "failed": 2},
        }
        assert before is not None
        assert record.revision == before.revision + 1


async def test_logins_count_failures_until_a_good_one(store: Store) -> None:
    await import_states(store, user, [("ada", LEGACY_USER)])
    async with Node(store, [users.suite]) as node:
        ada = node.actor(user, "ada")

        assert await ada.log_in("2024-05-01T10:00:00+00:00", succeeded=False) == 3
        assert await ada.log_in("2024-05-01T10:01:00+00:00") == 0
        assert (await ada.summary())["last_login"] == "2024-05-01T10:01:00+00:00"


async def test_a_new_user_has_a_name_once_renamed_and_logins_once_logged_in(store: Store) -> None:
    async with Node(store, [users.suite]) as node:
        bob = node.actor(user, "bob")
        await bob.rename("Bob")
        assert (await stored(node, "User", "bob")).states.keys() == {"profile"}

        await bob.log_in("2024-05-01T10:00:00+00:00")

        assert (await stored(node, "User", "bob")).states["logins"]["last"] == "2024-05-01T10:00:00+00:00"


async def test_fields_that_the_types_do_not_declare_stay(store: Store) -> None:
    await import_states(store, user, [("ada", LEGACY_USER | {"theme": {"dark": True}})])
    async with Node(store, [users.suite]) as node:
        await node.actor(user, "ada").rename("Ada")

        assert (await stored(node, "User", "ada")).states["profile"] == {
            "name": "Ada",
            "city": "Delhi",
            "language": "en",
            "theme": {"dark": True},
        }


async def test_a_city_that_the_atlas_lacks_leaves_both_states_alone(store: Store) -> None:
    await import_states(store, user, [("eve", LEGACY_USER | {"city": "Atlantis"})])
    async with Node(store, [users.suite]) as node:
        with pytest.raises(MigrationFailedError, match=r"2\.0\.0 \(logins_apart\).*Atlantis"):
            await node.actor(user, "eve").summary()

        record = await stored(node, "User", "eve")
        assert record.states == {"profile": LEGACY_USER | {"city": "Atlantis"}}
        assert record.info is None


async def test_the_old_release_is_refused_once_the_logins_are_apart(store: Store) -> None:
    await import_states(store, user, [("ada", LEGACY_USER)])
    async with Node(store, [users.suite]) as new:
        await new.actor(user, "ada").summary()
    async with Node(store, [release(users.suite, "1.1.0")], hand_over_seconds=0) as old:
        with pytest.raises(NewerStateError):
            await old.actor(user, "ada").rename("Eve")


async def test_the_way_down_gives_the_profile_its_logins_back(store: Store) -> None:
    gone_back = Suite("accounts")
    older = gone_back.actor_type(
        "User", state="profile", context_factory=lambda one: UserContext(one.state("logins"), Atlas())
    )

    @older.migration("1.0.0")
    async def there_and_back(state: dict[str, Any], context: UserContext) -> None:
        await users.logins_apart(state, context)
        await users.logins_back(state, context)

    profile = {"name": "Ada", "city": "Delhi", "failed_logins": 2, "last_login": "2024-03-01T04:00:00"}
    await import_states(store, older, [("ada", profile)])
    async with Node(store, [gone_back]) as node, node.activate("User", "ada") as activation:
        assert await activation.state().migrate_and_load() == profile

        assert (await stored(node, "User", "ada")).states == {"profile": profile}


async def test_the_atlas_is_asked_once_a_user_however_many_calls_come_at_once(store: Store) -> None:
    asked: list[str] = []

    class Counting(Atlas):
        async def utc_offset(self, city: str) -> timedelta:
            asked.append(city)
            return await super().utc_offset(city)

    counted = Suite("accounts")
    counted_user = counted.actor_type(
        "User",
        users.User,
        state="profile",
        context_factory=lambda one: UserContext(one.state("logins"), Counting()),
    )
    for migration in user.migrations:
        counted_user.migration(migration.version)(migration.function)
    await import_states(store, counted_user, [("ada", LEGACY_USER)])
    async with Node(store, [counted]) as node:
        await asyncio.gather(*(node.actor(counted_user, "ada").summary() for _ in range(10)))

    assert asked == ["Delhi"]
