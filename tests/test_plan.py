from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazymig import errors
from lazymig._migrations import Chain
from lazymig._plan import Found, Plan, check, decide
from lazymig._records import ActorKey, AppliedSet, Stamp
from lazymig._shapes import Storing, stamp_after
from lazymig._version import pack, parse, unpack

KEY = ActorKey("Car", "a")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def numbers(text: str) -> list[int]:
    return [pack(parse(part)) for part in text.split()]


def applied(text: str) -> AppliedSet:
    """Read '<=1.0.0 2.0.0': a floor, then versions."""
    floor = 0
    if text.startswith("<="):
        first, _, text = text[2:].partition(" ")
        floor = pack(parse(first))
    return AppliedSet(numbers(text), floor)


def chain(text: str, baseline: str | None = None) -> Chain:
    """Read '1.0.0 1.0.1*': versions, a star for late ones."""
    made = Chain("Car", None if baseline is None else parse(baseline))
    for part in text.split():
        made.add(part.rstrip("*"), lambda state, context: None, late=part.endswith("*"))
    return made


def found(text: str | None, *, main: bool = True, inferred: str = "0.0.0") -> Found:
    stamp = None if text is None else Stamp(applied(text), applied(text))
    return Found(stamp, has_states=True, has_main=main, inferred=pack(parse(inferred)))


STORED_AND_PENDING = [
    # registered, stored, inferred, steps, applied afterwards
    ("", "", "0.0.0", "", ""),
    ("", None, "0.0.0", "", ""),
    ("", None, "0.0.1", "", "<=0.0.1"),
    ("1.0.0 1.1.0 2.0.0", None, "0.0.0", "1.0.0 1.1.0 2.0.0", "1.0.0 1.1.0 2.0.0"),
    ("1.0.0 1.1.0 2.0.0", "", "0.0.0", "1.0.0 1.1.0 2.0.0", "1.0.0 1.1.0 2.0.0"),
    ("1.0.0 1.1.0 2.0.0", "1.0.0", "0.0.0", "1.1.0 2.0.0", "1.0.0 1.1.0 2.0.0"),
    ("1.0.0 1.1.0 2.0.0", "1.0.0 1.1.0 2.0.0", "0.0.0", "", "1.0.0 1.1.0 2.0.0"),
    ("1.0.0 1.1.0 2.0.0", None, "1.1.0", "2.0.0", "<=1.1.0 2.0.0"),
    ("1.0.0 1.1.0 2.0.0", None, "2.0.0", "", "<=2.0.0"),
    ("1.0.0 1.1.0 2.0.0", "<=1.0.5", "0.0.0", "1.1.0 2.0.0", "<=1.0.5 1.1.0 2.0.0"),
    ("1.0.0", "1.0.0 1.1.0", "0.0.0", "", "1.0.0 1.1.0"),
    ("1.0.0 1.0.1*", "1.0.0 1.1.0", "0.0.0", "1.0.1", "1.0.0 1.0.1 1.1.0"),
    ("1.0.0 1.0.1* 1.1.0", "1.0.0 1.1.0", "0.0.0", "1.0.1", "1.0.0 1.0.1 1.1.0"),
    ("1.0.0 1.0.1* 1.1.0 2.0.0", "1.0.0 1.1.0", "0.0.0", "1.0.1 2.0.0", "1.0.0 1.0.1 1.1.0 2.0.0"),
    ("1.0.0 1.0.1* 1.1.0", "1.0.0 1.0.1 1.1.0", "0.0.0", "", "1.0.0 1.0.1 1.1.0"),
    ("1.0.0 1.0.1 1.1.0", "<=1.1.0", "0.0.0", "", "<=1.1.0"),
]


@pytest.mark.parametrize(("registered", "stored", "inferred", "steps", "after"), STORED_AND_PENDING)
def test_what_is_registered_and_not_applied_runs_in_order(
    registered: str, stored: str | None, inferred: str, steps: str, after: str
) -> None:
    plan = decide(chain(registered), found(stored, inferred=inferred), KEY)

    assert isinstance(plan, Plan)
    assert [str(step.version) for step in plan.steps] == steps.split()
    assert plan.applied == applied(after)
    assert plan.must_commit is bool(steps or (stored is None and inferred != "0.0.0"))


@pytest.mark.parametrize(
    ("registered", "stored", "late"),
    [
        ("1.0.0 1.0.1 1.1.0", "1.0.0 1.1.0", "1.0.1"),
        ("1.0.0 1.0.1", "1.0.0 1.1.0", "1.0.1"),
        ("1.0.0 1.0.1* 1.0.2 1.1.0", "1.0.0 1.1.0", "1.0.2"),
        ("1.0.0 2.0.0 2.1.0", "<=1.0.0 2.1.0", "2.0.0"),
    ],
)
def test_a_late_migration_without_consent_is_never_skipped_in_silence(registered: str, stored: str, late: str) -> None:
    refusal = decide(chain(registered), found(stored), KEY)

    assert isinstance(refusal, errors.LateMigrationError)
    assert [str(version) for version in refusal.late] == late.split()
    assert (refusal.key, refusal.stored) == (KEY, unpack(applied(stored).highest))
    assert "late=True" in str(refusal)


@pytest.mark.parametrize(
    ("registered", "stored", "inferred"),
    [
        ("", "1.0.0", "0.0.0"),
        ("1.0.0", "2.0.0", "0.0.0"),
        ("1.0.0 1.9.9", "1.0.0 2.0.0", "0.0.0"),
        ("1.0.0", "<=2.0.0", "0.0.0"),
        ("1.0.0", None, "2.0.0"),
        ("0.9.0", None, "1.0.0"),
    ],
)
@pytest.mark.parametrize("main", [True, False])
def test_a_newer_major_is_refused_to_every_reader(
    registered: str, stored: str | None, inferred: str, *, main: bool
) -> None:
    state = found(stored, main=main, inferred=inferred)

    for refusal in (check(chain(registered), state, KEY), decide(chain(registered), state, KEY)):
        assert isinstance(refusal, errors.NewerStateError)
        assert refusal.key == KEY
        assert refusal.stored == unpack(applied(stored).highest if stored else pack(parse(inferred)))
        assert refusal.supported == chain(registered).supported


@pytest.mark.parametrize(("stored", "inferred"), [("", "0.0.0"), (None, "0.0.0"), ("1.0.0", "0.0.0"), (None, "1.0.9")])
def test_an_actor_below_the_baseline_is_too_old(stored: str | None, inferred: str) -> None:
    refusal = decide(chain("2.0.0", baseline="1.1.0"), found(stored, inferred=inferred), KEY)

    assert isinstance(refusal, errors.StateTooOldError)
    assert str(refusal.baseline) == "1.1.0"
    assert (refusal.key, str(refusal.stored)) == (KEY, stored or inferred)
    assert check(chain("2.0.0", baseline="1.1.0"), found(stored, inferred=inferred), KEY) is None


@pytest.mark.parametrize("stored", ["1.1.0", "1.0.0 1.2.0", "<=1.1.0"])
def test_an_actor_at_or_above_the_baseline_goes_on_from_there(stored: str) -> None:
    plan = decide(chain("2.0.0", baseline="1.1.0"), found(stored), KEY)

    assert isinstance(plan, Plan)
    assert [str(step.version) for step in plan.steps] == ["2.0.0"]


def test_an_actor_without_states_is_new_whatever_its_last_stamp() -> None:
    newer = Found(Stamp(applied("9.0.0"), applied("9.0.0")), has_states=False, has_main=False)
    made = chain("2.0.0", baseline="1.0.0")

    plan = decide(made, newer, KEY)
    assert check(made, newer, KEY) is None
    assert plan == Plan((), applied("<=1.0.0 2.0.0"), must_commit=False)
    assert stamp_after(made, newer, plan, Storing(creates_main=True)) == Stamp(made.release, made.release)


def test_without_main_state_nothing_runs_and_nothing_is_stamped() -> None:
    made = chain("1.0.0 2.0.0")
    state = found("1.0.0", main=False)

    plan = decide(made, state, KEY)
    assert plan == Plan((), applied("1.0.0"), must_commit=False)
    kept = stamp_after(made, state, plan, Storing(creates_main=False))
    assert kept is not None
    assert kept.applied == applied("1.0.0")
    created = stamp_after(made, state, plan, Storing(creates_main=True))
    assert created is not None
    assert created.applied == applied("1.0.0 2.0.0")


def test_a_state_that_is_stored_without_a_main_one_has_the_shape_of_this_software() -> None:
    made = chain("1.0.0 2.0.0")
    state = found("1.0.0", main=False)
    plan = decide(made, state, KEY)
    assert isinstance(plan, Plan)

    put = stamp_after(made, state, plan, Storing(creates_main=False, has_main=False))
    removed = stamp_after(made, state, plan, Storing(creates_main=False, has_main=False, puts=False))

    assert put is not None
    assert put.applied == made.release
    assert removed is not None
    assert removed.applied == applied("1.0.0")


def test_after_load_alone_the_writer_stays_where_its_set_is_known() -> None:
    for writer, after in (("0.9.0 1.1.0", "1.1.0"), ("1.0.0", "1.0.0"), ("2.0.0", "1.0.0 1.1.0")):
        made = chain("1.0.0 1.1.0" if after != "1.1.0" else "1.1.0")
        stamp = Stamp(applied("1.1.0"), applied(writer))
        state = Found(stamp, has_states=True, has_main=True)
        assert stamp_after(made, state, None, Storing(creates_main=False)) == stamp._replace(writer=applied(after))


def test_a_chain_works_out_what_is_pending_once_a_set() -> None:
    made = chain("1.0.0 2.0.0")

    first = decide(made, found("1.0.0"), KEY)
    assert decide(made, found("1.0.0"), KEY) is first
    assert decide(made, found(""), KEY) is not first
    made.add("3.0.0", lambda state, context: None, late=False)
    plan = decide(made, found("1.0.0"), KEY)
    assert isinstance(plan, Plan)
    assert [str(step.version) for step in plan.steps] == ["2.0.0", "3.0.0"]


def test_a_chain_remembers_a_bounded_number_of_sets() -> None:
    made = chain("1.0.0")
    sets = [found(f"0.0.{patch}") for patch in range(1, 1_026)]
    remembered = [decide(made, one, KEY) for one in sets[:1_024]]

    assert all(decide(made, one, KEY) is plan for one, plan in zip(sets, remembered, strict=False))
    decide(made, sets[1_024], KEY)
    assert decide(made, sets[0], KEY) is not remembered[0]


def test_after_load_alone_the_stamp_stays_and_the_older_writer_is_named() -> None:
    stamp = Stamp(applied("1.0.0 1.1.0"), applied("1.0.0 1.1.0"), NOON)
    state = Found(stamp, has_states=True, has_main=True)

    older = stamp_after(chain("1.0.0"), state, None, Storing(creates_main=False))
    newer = stamp_after(chain("1.0.0 1.1.0 1.2.0"), state, None, Storing(creates_main=False))
    assert older == Stamp(stamp.applied, applied("1.0.0"), NOON)
    assert newer == stamp
    assert stamp_after(chain("1.0.0"), found(None), None, Storing(creates_main=False)) is None


def test_software_that_migrates_names_itself_the_writer() -> None:
    made = chain("1.0.0")
    state = found("1.0.0 1.1.0")
    plan = decide(made, state, KEY)
    assert isinstance(plan, Plan)

    assert stamp_after(made, state, plan, Storing(creates_main=False)) == Stamp(applied("1.0.0 1.1.0"), made.release)


registered_lists = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), unique=True).map(sorted)


@given(registered_lists, st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))), st.booleans())
def test_a_plan_applies_each_registered_version_once_and_takes_none_away(
    registered: list[tuple[int, int, int]],
    stored: set[tuple[int, int, int]],
    late: bool,  # noqa: FBT001  (drawn)
) -> None:
    made = chain(" ".join(f"{a}.{b}.{c}{'*' if late else ''}" for a, b, c in registered if (a, b, c) != (0, 0, 0)))
    before = AppliedSet(pack(parse(f"{a}.{b}.{c}")) for a, b, c in stored)
    plan = decide(made, Found(Stamp(before, before), has_states=True, has_main=True), KEY)

    if isinstance(plan, errors.NewerStateError):
        assert unpack(before.highest).major > made.supported.major
        return
    if isinstance(plan, errors.LateMigrationError):
        assert not late
        assert all(pack(version) not in before.packed and version < plan.stored for version in plan.late)
        return
    assert isinstance(plan, Plan)
    steps = [step.packed for step in plan.steps]
    assert steps == sorted(steps)
    assert not any(step in before.packed for step in steps)
    assert set(plan.applied.packed) == set(before.packed) | set(made.release.packed)
    again = decide(made, Found(Stamp(plan.applied, made.release), has_states=True, has_main=True), KEY)
    assert isinstance(again, Plan)
    assert (again.steps, again.must_commit) == ((), False)
