"""The main job in a few seconds: legacy data upgraded vehicle by vehicle while an old and a new release serve it.

`python -m suites.demo` writes vehicles in km/h as JSON lines, imports them into a SQLite file, and serves that with
processes of release 1 (supports 1.1.0) and release 2 (2.0.0) under mixed calls. An operator leads the deploy by
commands, which are shown with their answers: a pin before release 2 comes, a gate that says no while a process of
release 1 lives, the flip, and a sweep of the vehicles that nobody called, so that old migrations may go. One process is
killed without mercy and replaced. In the end every vehicle is compared with the legacy data and with what the processes
wrote down; the exit status is 1 if anything is missing or wrong, or a command is answered otherwise.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from lazymig import Node, open_store
from lazymig.transfer import export_states, import_json_lines
from suites._demo_board import Board, process_table
from suites._demo_crew import Crew, DemoError, Site
from suites._demo_ledger import Books, Legacy, prove
from suites._demo_office import Office
from suites.vehicles import suite, vehicle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lazymig import ActorRecord

OLD, NEW = "1.1.0", "2.0.0"

STAGE_SECONDS = 7.0
"""A slow machine goes on to the next stage after that long; there are four."""

LOOK_SECONDS = 0.1

MOST = 0.7
"""Share of the fleet that is written at 2.0.0 before the rest is swept."""

SHOWN_FAULTS = 20

FIRST_NAMES = ("Noor", "Ada", "Bram", "Chiara", "Dilek", "Emeka", "Fleur", "Goran", "Hana", "Iker", "Jānis", "Łucja")
LAST_NAMES = ("Jansen", "Okafor", "de Vries", "Rossi", "Yılmaz", "Novák", "García", "Müller", "Sato", "O'Brien")
MODELS = ("VW Caddy", "Renault Kangoo", "Volvo FH16", "MAN TGX", "Tesla Model 3", "Fiat Ducato")
LETTERS = "BDFGHJKLNPRSTVXZ"


def draw_legacy(count: int, seed: int) -> Legacy:
    """Return vehicles as the old system kept them: km/h, one owner or none, no migration-info."""
    dice = random.Random(seed)
    fleet: Legacy = {}
    for number in dice.sample(range(len(LETTERS) ** 3 * 1000), count):
        letters, digits = divmod(number, 1000)
        rest, third = divmod(letters, len(LETTERS))
        first, second = divmod(rest, len(LETTERS))
        plate = f"{LETTERS[first]}{LETTERS[second]}-{digits:03}-{LETTERS[third]}"
        is_parked = dice.random() < 0.2
        fleet[plate] = {
            "plate": plate,
            "model": dice.choice(MODELS),
            "owner": f"{dice.choice(FIRST_NAMES)} {dice.choice(LAST_NAMES)}" if dice.random() < 0.97 else None,
            "velocity": 0.0 if is_parked else round(min(130.0, max(5.0, dice.gauss(72.0, 24.0))), 1),
        }
    return fleet


def write_legacy(site: Site, legacy: Legacy) -> None:
    """Write the legacy file, and the plates for the processes."""
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in legacy.values()]
    site.legacy.write_text("".join(lines), encoding="utf-8")
    site.plates.write_text("\n".join(legacy), encoding="utf-8")


async def import_legacy(site: Site) -> int:
    """Import the legacy file and return how many vehicles it brought."""
    async with open_store(site.store) as store:
        with site.legacy.open("rb") as lines:
            report = await import_json_lines(store, vehicle, lines, id_field="plate")
    return report.imported


class Rollout:
    """Release 2 comes to a fleet that release 1 serves.

    Args:
        crew: To start processes with.
        board: Shows how it goes.
        office: Who asks the gates, and acts.
        fleet: How many vehicles there are.
        seconds: How long to serve at least.
    """

    def __init__(self, crew: Crew, board: Board, office: Office, fleet: int, seconds: float) -> None:
        self._crew = crew
        self._board = board
        self._office = office
        self._fleet = fleet
        self._seconds = seconds

    def run(self) -> None:
        """Play all stages.

        Raises:
            DemoError: A process ended by itself, or a command was answered otherwise.
        """
        started = time.monotonic()
        crew, board, office, fleet = self._crew, self._board, self._office, self._fleet
        board.say("release 1 serves alone, and is the one that vehicles are pinned to")
        old = crew.start("old-1", OLD)
        self._watch(lambda at: at[OLD] >= fleet / 4)
        office.expect(f"lazymig rollout pin Vehicle {OLD}", "yes")
        board.say("release 2 joins with two processes; both releases write what release 1 can read")
        victim = crew.start("new-1", NEW)
        other = crew.start("new-2", NEW)
        self._watch(lambda at: at[OLD] >= fleet / 2 and victim.tally.writes > 0 and other.tally.writes > 0)
        office.expect(f"lazymig gate flip Vehicle {NEW}", "no")
        board.say("new-1 is killed (SIGKILL), new-3 takes its place")
        victim.kill()
        heir = crew.start("new-3", NEW)
        self._watch(lambda _: heir.tally.writes > 0)
        board.say("old-1 stops in good order: all processes run release 2")
        crew.stop(old)
        office.expect(f"lazymig rollout flip Vehicle {NEW}", "yes")
        board.say("release 2 writes its own shape")
        self._watch(lambda at: at[NEW] >= MOST * fleet and time.monotonic() - started >= self._seconds)
        board.say("a sweep brings up the vehicles that nobody called, beside the calls; then old migrations may go")
        office.expect("lazymig sweep Vehicle", "yes")
        office.expect(f"lazymig gate retire Vehicle {NEW}", "yes")
        board.say("all stop in good order")
        crew.stop()
        board.show(crew, office.count())
        office.expect("lazymig census Vehicle", "yes")

    def _watch(self, is_reached: Callable[[Counter[str]], bool]) -> None:
        """Look and show until the stage's end is reached, or its time is up.

        Args:
            is_reached: Given how many vehicles are at each version.
        """
        deadline = time.monotonic() + max(STAGE_SECONDS, self._seconds)
        versions = Counter(self._office.count())
        while not is_reached(versions) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            self._crew.look()
            versions = Counter(self._office.count())
            self._board.show(self._crew, versions)


async def read_fleet(site: Site) -> dict[str, ActorRecord]:
    """Return all vehicles as stored."""
    async with open_store(site.store, create=False) as store:
        return {record.key.id: record async for record in export_states(store, vehicle)}


async def tamper(site: Site, plate: str) -> None:
    """Accelerate a vehicle behind the ledgers' back, to show that the proof notices."""
    async with open_store(site.store) as store, Node(store, [suite]) as node:
        await node.actor(vehicle, plate).accelerate(1.0)


def conclude(console: Console, faults: list[str], fleet: int, crew: Crew) -> None:
    """Tell the result of the proof, and end with status 1 if there are faults."""
    for fault in faults[:SHOWN_FAULTS]:
        console.print(f"  {fault}", soft_wrap=True, markup=False)
    if faults:
        console.print(f"PROOF FAILED: {len(faults):,} fault{'s' * (len(faults) > 1)} in {fleet:,} vehicles")
        sys.exit(1)
    writes = sum(worker.tally.writes for worker in crew.workers)
    pending = sum(len(worker.tally.pending) for worker in crew.workers)
    console.print(f"proof: all {fleet:,} vehicles are there with the right velocity, owner and drivers", soft_wrap=True)
    console.print(f"       ({writes:,} accelerations acknowledged, {pending} under way at the kill)", soft_wrap=True)
    projections = sum(worker.tally.projections for worker in crew.workers)
    console.print(f"       ({projections:,} times release 2 brought up what was written for release 1)", soft_wrap=True)


@contextmanager
def make_site(folder: Path | None, seed: int) -> Iterator[Site]:
    """Work in the folder and keep it, or in a temporary one."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise click.UsageError(f"{folder} is not empty. Name a new folder.")
        yield Site(folder.resolve(), is_kept=True, seed=seed)
        return
    with tempfile.TemporaryDirectory(prefix="lazymig-demo-") as made:
        yield Site(Path(made).resolve(), is_kept=False, seed=seed)


@click.command()
@click.option("--vehicles", default=2000, show_default=True, type=click.IntRange(50, 100_000), help="How many.")
@click.option(
    "--seconds", default=8.0, show_default=True, type=click.FloatRange(0, 600), help="Serve at least so long."
)
@click.option("--seed", default=1, show_default=True, help="Of the legacy data and the traffic.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Work in this folder, and keep it.")
@click.option("--tamper", "is_tampered", is_flag=True, hidden=True, help="Falsify a vehicle before the proof.")
def main(vehicles: int, seconds: float, seed: int, directory: Path | None, *, is_tampered: bool) -> None:
    """Upgrade a fleet lazily while two releases serve it; exit with 1 if a vehicle is lost or wrong."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda caught, _: sys.exit(128 + caught))
    console = Console(highlight=False)
    legacy = draw_legacy(vehicles, seed)
    with make_site(directory, seed) as site:
        write_legacy(site, legacy)
        imported = asyncio.run(import_legacy(site))
        console.print(f"{imported:,} vehicles in km/h imported from {site.legacy.name}, none has migration-info")
        try:
            with Crew(site) as crew, Board(console, vehicles) as board, Office(site, board) as office:
                Rollout(crew, board, office, vehicles, seconds).run()
        except DemoError as error:
            raise click.ClickException(str(error)) from None
        if is_tampered:
            asyncio.run(tamper(site, next(iter(legacy))))
        records = asyncio.run(read_fleet(site))
        faults = prove(legacy, Books.of(worker.tally for worker in crew.workers), records)
    if site.is_kept:
        console.print(f"kept in {site.folder}", soft_wrap=True, markup=False)
    console.print(process_table(crew))
    conclude(console, faults, vehicles, crew)


if __name__ == "__main__":
    main()
