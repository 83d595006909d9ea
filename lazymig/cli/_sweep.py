"""``lazymig sweep``: bring idle actors to the version that their type is written at; how far sweeps are."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lazymig.cli._access import Family, check_known, common_options, opened, pass_store_on, run, unknown_type
from lazymig.cli._interrupts import Interrupted, Stop, stopping
from lazymig.cli._output import FINE, FOUND, Output, plain, print_tables
from lazymig.cli._preflight import print_figures, print_unproven, print_verdict
from lazymig.cli._progress import progress
from lazymig.cli._settings import Settings, read_settings
from lazymig.cli._suites import load_types
from lazymig.errors import LazymigError, StoreError
from lazymig.rollout._sweep import MAX_FAILURES, sweep_type
from lazymig.rollout._sweep_notes import sweep_statuses
from lazymig.rollout._sweep_pace import ACTORS_PER_SECOND, BYTES_PER_SECOND
from lazymig.rollout._sweep_report import SweepReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.table import Table

    from lazymig.cli._progress import Progress
    from lazymig.rollout._sweep_notes import SweepStatus
    from lazymig.store import Store
    from lazymig.suite import ActorType

F = TypeVar("F", bound="Callable[..., Any] | click.Command")

_SHOWN_FAILURES = 20
"""How many failures people are shown; a document has all that are kept."""


class SweepFamily(Family):
    """Sweeps, unless a subcommand is named: ``sweep Vehicle`` is ``sweep run Vehicle``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the subcommand in that is meant."""
        if not args or (args[0] not in self.commands and args[0] not in {"-h", "--help"}):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group("sweep", cls=SweepFamily)
@common_options
@click.pass_context
def command(context: click.Context, store: str | None) -> None:
    """Bring idle actors, entries included, to the version that their type is written at, up or down.

    'lazymig sweep TYPE' runs a sweep, 'lazymig sweep run --help' shows its options. It is safe beside calls and beside
    another sweep; what was stopped or killed goes on when it is begun again.
    """
    pass_store_on(context, store)


def _read_rate(context: click.Context, option: click.Parameter, value: str) -> float | None:
    """Read a number above 0, or "none"."""
    if value == "none":
        return None
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise click.BadParameter(f"{value!r} is neither a number above 0 nor 'none'.", context, option)
    return rate


def _rate_option(name: str, default: float) -> Callable[[F], F]:
    return click.option(
        name, default=f"{default:.0f}", show_default=True, metavar="N", callback=_read_rate, help="At most; or 'none'."
    )


@command.command("run", short_help="Sweep each TYPE, or all types of the suites.")
@click.argument("actor_types", metavar="[TYPE]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Run the migrations on copies only, and write nothing.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Bring up N actors of a type at most.")
@_rate_option("--actors-per-second", ACTORS_PER_SECOND)
@_rate_option("--bytes-per-second", BYTES_PER_SECOND)
@click.option(
    "--max-failures",
    type=click.IntRange(1),
    default=MAX_FAILURES,
    show_default=True,
    metavar="N",
    help="End once so many actors of a type have failed.",
)
@common_options
@click.pass_obj
def run_sweep(output: Output, /, actor_types: Sequence[str], store: str | None, **options: Any) -> int:
    """Bring idle actors of each TYPE to the version that it is written at, up or down; of all types without one.

    Exits with 1 unless all of them are at it afterwards: some failed, are held by a node, or were not come to. Ctrl-C
    ends it after the batch at hand, with status 130.
    """
    sweeps = _Sweeps(output, read_settings(store), actor_types, options)
    with progress() as shown, stopping() as stop:
        run(partial(sweeps.run, shown, stop))
    document = sweeps.document()
    if sweeps.is_interrupted:
        raise Interrupted(sweeps.where(), document)
    if output.is_json:
        output.answer(document, "")
    else:
        sweeps.print()
    return FINE if sweeps.is_complete else FOUND


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `sweep` is told to end by."""

    stop: Stop

    def is_set(self) -> bool:
        """Tell whether it is to end."""
        return self.stop.is_set


class _Sweeps:
    """Sweeps of one type after the other."""

    def __init__(self, output: Output, settings: Settings, asked: Sequence[str], options: Mapping[str, Any]) -> None:
        self._output = output
        self._settings = settings
        self._asked = list(dict.fromkeys(asked))
        self._options = options
        self._refused: dict[str, str] = {}
        self._not_swept: dict[str, str] = {}
        self._not_begun: list[str] = []
        self.reports: list[SweepReport] = []

    @property
    def total(self) -> SweepReport:
        """All of it as one; stopped, too, if a type was not come to."""
        return reduce(add, self.reports, SweepReport(ended="stopped" if self._not_begun else "finished"))

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for is at its version."""
        return self.total.is_complete and not self._refused

    @property
    def is_interrupted(self) -> bool:
        """Whether it was stopped before all that was asked for was come to."""
        return bool(self._not_begun) or any(report.ended == "stopped" for report in self.reports)

    async def run(self, shown: Progress, stop: Stop) -> None:
        """Sweep what was asked for.

        Raises:
            Refusal: A type is in no suite.
        """
        types = load_types(self._settings)
        for name in self._asked:
            if name not in types:
                raise unknown_type(name, list(types))
        async with opened(self._settings, read_only=self._options["dry_run"]) as store:
            stored = await store.types()
            for name in self._asked or sorted(types):
                if stop.is_set:
                    self._not_begun.append(name)
                else:
                    await self._sweep(store, types[name], shown, stop)
            swept = {name for report in self.reports for name in report.types}
            for name in sorted({*stored, *types} - swept):
                self._not_swept[name] = self._refused.get(name) or self._reason(name, types)

    def _reason(self, name: str, types: Mapping[str, ActorType[Any]]) -> str:
        if name not in types:
            return "no suite here has it: add its suite to [tool.lazymig] in pyproject.toml"
        if name in self._not_begun:
            return "interrupted before it"
        return "not asked for"

    async def _sweep(self, store: Store, actor_type: ActorType[Any], shown: Progress, stop: Stop) -> None:
        def show(report: SweepReport) -> None:
            done = report.actors - report.left
            text = f"{actor_type.name}: {_done(report)}, {report.left:,} left"
            if report.is_paused:
                text += f", paused: '{_resume(actor_type.name)}' lets it go on"
            shown.update(report.migrated, plain(text), done / report.actors if report.actors else None)

        try:
            report = await sweep_type(store, actor_type, **self._options, stop=_Asked(stop), progress=show)
        except StoreError:
            raise
        except LazymigError as error:
            if len(self._asked) == 1:
                raise
            self._refused[actor_type.name] = f"refused: {error}"
            self._output.note(plain(f"{actor_type.name} was not swept: {error}"))
            return
        self.reports.append(report)

    def where(self) -> str:
        """Return where an interrupted sweep stands."""
        total = self.total
        left = f"{total.left:,} left{''.join(f', {name} not begun' for name in self._not_begun)}"
        if self._options["dry_run"]:
            return f"{_done(total)}, {left}. Nothing was stored; a dry run begins anew."
        again = shlex.join(["lazymig", "sweep", *self._asked])
        return f"{total.migrated:,} actors migrated, {left}. '{again}' goes on."

    def document(self) -> dict[str, Any]:
        """Return all of it as a document has it."""
        return {
            "store": self._settings.shown_store,
            "sweeps": [report.to_json() for report in self.reports],
            "total": self.total.to_json(),
            "coverage": {
                "swept": list(self.total.types),
                "not_swept": [{"type": name, "reason": reason} for name, reason in self._not_swept.items()],
            },
        }

    def print(self) -> None:
        """Show it to people."""
        total, preflight = self.total, self.total.preflight
        if preflight is not None:
            print_unproven(preflight)
            print_verdict(total, preflight)
        if self.reports:
            print_tables(_table([*self.reports, total] if len(self.reports) > 1 else self.reports))
        failed = total.failed
        for one in failed[:_SHOWN_FAILURES]:
            click.echo(plain(f"failed: {one.key}: {one.error}"))
        if len(failed) > _SHOWN_FAILURES:
            click.echo(f"and {len(failed) - _SHOWN_FAILURES:,} more: --json names them")
        if preflight is not None:
            print_figures(preflight)
        click.echo(plain(self._coverage()))

    def _coverage(self) -> str:
        swept = ", ".join(self.total.types) or "nothing"
        rest = "; ".join(f"{name} ({reason})" for name, reason in self._not_swept.items())
        return f"swept: {swept}. Not swept: {rest or 'no other types'}."


def _done(report: SweepReport) -> str:
    preflight = report.preflight
    return f"{report.migrated:,} migrated" if preflight is None else f"{preflight.tried:,} tried"


def _table(reports: Sequence[SweepReport]) -> Table:
    from rich.table import Table  # noqa: PLC0415  (not for --json)
    from rich.text import Text  # noqa: PLC0415

    columns = ("migrated", "current", "busy", "newer", "failed", "left")
    table = Table("type", *columns, "a second", "from", box=None)
    for column in table.columns[1:-1]:
        column.justify = "right"
    for report in reports:
        counts = [report.migrated, report.current, report.busy, report.newer, len(report.failed), report.left]
        versions = ", ".join(f"{version}: {count:,}" for version, count in report.from_versions.items())
        name = report.types[0] if len(report.types) == 1 else "total"
        table.add_row(Text(plain(name)), *(f"{count:,}" for count in counts), f"{report.rate:,.0f}", versions)
    return table


# --- from another process ----------------------------------------------------------------------------------------

_type = click.argument("actor_type", metavar="TYPE")


@command.command("pause", short_help="Let sweeps of TYPE pause.")
@_type
@common_options
@click.pass_obj
def pause(output: Output, actor_type: str, store: str | None) -> None:
    """Let sweeps of TYPE pause, those under way within seconds and those to come, until they are to go on."""
    _set_paused(output, actor_type, store, is_paused=True)


@command.command("resume", short_help="Let paused sweeps of TYPE go on.")
@_type
@common_options
@click.pass_obj
def resume(output: Output, actor_type: str, store: str | None) -> None:
    """Let sweeps of TYPE go on that were paused."""
    _set_paused(output, actor_type, store, is_paused=False)


def _set_paused(output: Output, actor_type: str, store: str | None, *, is_paused: bool) -> None:
    settings = read_settings(store)
    is_change = run(partial(_pause, settings, actor_type, is_paused=is_paused))
    document = {"store": settings.shown_store, "type": actor_type, "paused": is_paused, "changed": is_change}
    text = (
        f"sweeps of {actor_type} pause; '{_resume(actor_type)}' lets them go on"
        if is_paused
        else f"sweeps of {actor_type} go on"
    )
    output.answer(document, plain(text if is_change else f"{text}, as before"))


def _resume(actor_type: str) -> str:
    return shlex.join(["lazymig", "sweep", "resume", actor_type])


async def _pause(settings: Settings, actor_type: str, *, is_paused: bool) -> bool:
    async with opened(settings) as store:
        await check_known(store, actor_type, settings)
        return await store.sweeping.pause(actor_type, is_paused=is_paused)


@command.command("status", short_help="Show how far sweeps are.")
@click.argument("actor_type", metavar="[TYPE]", required=False)
@common_options
@click.pass_obj
def status(output: Output, actor_type: str | None, store: str | None) -> None:
    """Show how far the sweeps under way are, and what the last ones came to; of all types without a TYPE."""
    settings = read_settings(store)
    found, paused = run(partial(_status, settings, actor_type))
    document = {
        "store": settings.shown_store,
        "sweeps": [one.to_json() for one in found],
        "paused": sorted(paused),
    }
    if output.is_json or not found:
        output.answer(document, "no sweeps")
    else:
        print_tables(_status_table(found))
    if not output.is_json and paused:
        click.echo(plain(f"paused: {', '.join(sorted(paused))}"))


async def _status(settings: Settings, actor_type: str | None) -> tuple[list[SweepStatus], frozenset[str]]:
    async with opened(settings) as store:
        if actor_type is not None:
            await check_known(store, actor_type, settings)
        found = [one for one in await sweep_statuses(store) if actor_type in {None, one.type}]
        paused = frozenset(name for name in await store.sweeping.paused() if actor_type in {None, name})
        return found, paused


def _status_table(found: Sequence[SweepStatus]) -> Table:
    from rich.table import Table  # noqa: PLC0415  (not for --json)
    from rich.text import Text  # noqa: PLC0415

    table = Table("type", "state", "migrated", "left", "failed", "a second", "seconds left", "noted", "by", box=None)
    for one in found:
        left = "" if one.seconds_left is None else f"{one.seconds_left:,.0f}"
        cells = (
            one.type, one.state, f"{one.migrated:,}", f"{one.left:,}", f"{one.failed:,}", f"{one.rate:,.0f}", left,
            one.noted_at.isoformat(timespec="seconds"), one.label,
        )  # fmt: skip
        table.add_row(*(Text(plain(cell)) for cell in cells))
    return table
