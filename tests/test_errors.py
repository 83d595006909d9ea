from __future__ import annotations

import inspect
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from semver import Version

from lazymig import ActorKey, Node, Suite, errors, open_store
from lazymig.memory import MemoryStore

KEY = ActorKey("Car", "a")
ONE, TWO = Version(1, 0, 0), Version(2, 0, 0)

MADE: list[errors.LazymigError] = [
    errors.DefinitionError("wrong. Put it right."),
    errors.InvalidVersionError("1.0", "not in SemVer's form"),
    errors.InvalidVersionError(lambda: None, "it is of type function, not a string"),
    errors.DuplicateMigrationError("Car", ONE, "first", "second"),
    errors.MigrationOrderError("Car", ONE, TWO),
    errors.FrozenDefinitionError("Car"),
    errors.MissingMigrationError("Car", [ONE], ONE, 7, ["a", "b"]),
    errors.MissingMigrationError("Car", [ONE], ONE, 1, ["a"], of_entries=True),
    errors.MissingMigrationError("Car", [ONE], ONE, 0, []),
    errors.WriteVersionError("Car", ONE, "it has no way down: 2.0.0 (two) has no down"),
    errors.WriteVersionError("Car", ONE, "node n1: it supports 0.1.0 only", ["n1"]),
    errors.InvalidKeyError("an actor id", "", "is empty"),
    errors.InvalidKeyError("an actor id", lambda: None, "is of type function"),
    errors.InvalidValueError("the value", "$.a", "is nan"),
    errors.ActivationError(KEY, "not now"),
    errors.NewerStateError(KEY, TWO, ONE, ["n1"]),
    errors.StateTooOldError(KEY, ONE, TWO),
    errors.LateMigrationError(KEY, TWO, [ONE]),
    errors.LateMigrationError(None, TWO, [ONE], actor_type="Car", count=7),
    errors.MigrationFailedError(KEY, ONE, "function", "KeyError: 'x'"),
    errors.QuarantinedError(KEY, ONE, "function", "KeyError: 'x'", 3, datetime(2026, 5, 4, tzinfo=UTC)),
    errors.CorruptStateError(KEY, "it is no JSON"),
    errors.NewerStateError(KEY, TWO, ONE, ["n1"], ("log", "k")),
    errors.StateTooOldError(KEY, ONE, TWO, ("log", "k")),
    errors.LateMigrationError(KEY, TWO, [ONE], ("log", "k")),
    errors.MigrationFailedError(KEY, ONE, "function", "KeyError: 'x'", ("log", "k")),
    errors.CorruptStateError(KEY, "it is no JSON", ("log", "k")),
    errors.NotLoadedError(KEY, "main"),
    errors.NoEntryError(KEY, ("log", "k")),
    errors.ReadOnlyActionError(KEY, "read"),
    errors.ActivationClosedError(KEY),
    errors.ActorLockedError(KEY, "n1", 1.5),
    errors.ActorLockedError(KEY, "n1", None),
    errors.RestoreError(KEY, "nothing is kept of it", "take a backup"),
    errors.RestoreError(KEY, "1 entry lacks", "take a backup", ("log", "k")),
    errors.ActivationInProgressError(KEY, 30.0),
    errors.LeaseLostError(KEY),
    errors.CallError("not made"),
    errors.UnknownActorTypeError("Cat", ["Car"]),
    errors.UnknownActionError("Car", "drive", ["stop"]),
    errors.ReentrantCallError(KEY, [KEY]),
    errors.CallNotTakenError(KEY, "add", 10.0),
    errors.CallLostError(KEY, "add", "n1"),
    errors.QueueFullError(KEY, 1_000),
    errors.RemoteError("ValueError", "no", "n1"),
    errors.NodeDrainingError("pod-1"),
    errors.NodeStoppedError("n1"),
    errors.StoreError("broken"),
    errors.StoreUnavailableError("busy"),
    errors.StoreClosedError("memory:"),
    errors.StoreLayoutError("newer"),
    errors.StoreMissingError("gone"),
    errors.StoreReadOnlyError("read-only"),
    errors.InvalidStoreUrlError("x:", "no kind of store"),
    errors.ConfigurationError("no such setting"),
    errors.LazymigError("base"),
]


def test_every_error_is_listed_and_tried_here() -> None:
    defined = {name for name, found in vars(errors).items() if inspect.isclass(found)}
    assert defined == set(errors.__all__) == {type(error).__name__ for error in MADE}
    tree = (inspect.getdoc(errors) or "").split()
    assert defined <= set(tree)


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_every_error_pickles_with_its_fields(error: errors.LazymigError) -> None:
    copied = pickle.loads(pickle.dumps(error))

    assert type(copied) is type(error)
    assert (str(copied), vars(copied)) == (str(error), vars(error))


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_activation_error_names_the_actor_and_ends_with_a_cure(error: errors.LazymigError) -> None:
    if isinstance(error, errors.LateMigrationError) and error.actor_type is not None:
        assert error.key is None
        assert str(error).startswith("Car ")
        assert str(error).endswith(".")
    elif isinstance(error, errors.ActivationError) and type(error) is not errors.ActivationError:
        assert error.key == KEY
        assert "Car 'a'" in str(error)
        assert str(error).endswith(".")


def test_only_what_trying_again_can_help_is_retryable() -> None:
    retryable = {type(error) for error in MADE if getattr(error, "retryable", False)}
    assert retryable == {errors.StoreUnavailableError}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suites": Suite("fleet")}, r"Node\(store, \[suite\]\)"),
        ({"lease_seconds": "3"}, "lease_seconds"),
        ({"idle_seconds": None}, "idle_seconds"),
        ({"lease_seconds": float("nan")}, "lease_seconds"),
    ],
)
async def test_a_wrongly_made_node_says_how_to_make_it(options: Any, message: str) -> None:
    with pytest.raises(errors.DefinitionError, match=message):
        Node(MemoryStore(), **options)


@pytest.mark.parametrize(
    "url", ["", "sqlite:", "sqlite:x.db", "sqlite:///", "sqlite:///:memory:", "memory:x", "sqlite:///a?x=1", None, 7]
)
async def test_a_url_that_names_no_store_is_refused_with_the_forms_there_are(url: Any) -> None:
    with pytest.raises(errors.InvalidStoreUrlError, match="Use memory:, sqlite:///"):
        async with open_store(url):
            pass
