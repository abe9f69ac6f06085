"""Sendouts, imports and clients that want the same things at the same time."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from coupons.commands import Command, ImportCoupons, ResumeSendout, StartSendout
from coupons.store.imports import Mode
from tests.acceptance.system import letter
from tests.faults.lab import END_SECONDS, Fleet, Lab, codes_of, size
from tests.faults.oracle import read
from tests.waiting import eventually

CLIENTS = 3


def publish_from_everywhere(lab: Lab, commands: Sequence[Command]) -> None:
    """Several clients at the same time, each with a part of the commands."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda part: lab.publish(*part), [commands[client::CLIENTS] for client in range(CLIENTS)]))


def is_noted(lab: Lab, command: Command) -> bool:
    return bool(lab.rows("SELECT FROM command WHERE id = $1", command.id))


# --- more demand than stock ----------------------------------------------------------------------------------------

LISTS = ("race-a", "race-b", "race-c")
OF_SUBSETS = [subset for count in (1, 2, 3) for subset in itertools.combinations(LISTS, count)]
SHARE_IN_STOCK, SHARE_IMPORTED = 0.4, 0.2
"""Of all codes that the sendouts want: there when they begin, and brought while they do."""
AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Rush:
    """Sendouts that want more than the lists have, and imports that bring some of it meanwhile."""

    sendouts: Sequence[StartSendout]
    imports: Sequence[ImportCoupons]
    stock: Mapping[str, Sequence[str]]
    """All codes of each list: those imported, and at the end some that are not."""

    @property
    def ids(self) -> list[UUID]:
        return [sendout.id for sendout in self.sendouts]


def rush(lab: Lab, sendouts: int, recipients: tuple[int, int]) -> Rush:
    """So many sendouts, each to so many recipients (from, to), of messages that show one, two or three lists."""
    chance = random.Random(5)
    chosen = [(chance.choice(OF_SUBSETS), chance.randint(*recipients)) for _ in range(sendouts)]
    demand = Counter({name: sum(count for subset, count in chosen if name in subset) for name in LISTS})
    stock = {name: codes_of(name, demand[name]) for name in LISTS}
    begun = {name: int(SHARE_IN_STOCK * demand[name]) for name in LISTS}
    brought = {name: int((SHARE_IN_STOCK + SHARE_IMPORTED) * demand[name]) for name in LISTS}
    lab.has("stock", "stock", ["nobody@example.org"], {name: stock[name][: begun[name]] for name in LISTS})
    for number, (subset, count) in enumerate(chosen):
        people = [f"race{number}-{each}@example.org" for each in range(count)]
        lab.has(f"race-{number}", f"race-{number}", people, {}, text=letter(*subset))
    imports = [
        ImportCoupons(list=name, codes=tuple(stock[name][start : min(start + AT_ONCE, brought[name])]))
        for name in LISTS
        for start in range(begun[name], brought[name], AT_ONCE)
    ]
    commands = [StartSendout(message=f"race-{number}", group=f"race-{number}") for number in range(sendouts)]
    return Rush(commands, imports, stock)


@dataclass(frozen=True, slots=True)
class Want:
    """What a sendout needs of a list, what it holds and what the list has for it."""

    name: str
    needed: int
    held: int
    missing: int
    available: int


def wants(lab: Lab, sendout: UUID) -> list[Want]:
    found = lab.rows(
        "SELECT l.name, needed, reserved AS held, missing, available FROM sendout_list "
        "JOIN coupon_list l ON l.id = list_id WHERE sendout_id = $1",
        sendout,
    )
    return [Want(**row) for row in found]


def interrupted(lab: Lab, sendouts: Sequence[UUID]) -> list[UUID]:
    return [sendout for sendout in sendouts if lab.state(sendout) == "interrupted"]


def comes_to_rest(lab: Lab, of: Rush) -> None:
    """Wait until no import and no sendout has anything to do."""
    lab.wait_finished(*(each.id for each in of.imports))
    states = "SELECT state FROM sendout WHERE state NOT IN ('finished', 'interrupted')"
    eventually(
        lambda: len(lab.rows("SELECT FROM sendout")) == len(of.sendouts) and not lab.rows(states),
        "all sendouts to rest",
    )


def holds_nothing(lab: Lab, sendout: UUID) -> None:
    """An interrupted sendout has numbers, no code, and has mailed nobody."""
    of_each = wants(lab, sendout)
    assert any(want.missing for want in of_each)
    assert all(want.held == 0 and want.missing <= want.needed for want in of_each), of_each
    assert set(lab.deliveries(sendout).values()) == {"pending"}


def is_decided_by_the_numbers(lab: Lab, sendout: UUID) -> None:
    """Resumed while nobody else wants anything, it goes on if every list has enough; else it says what each lacks."""
    before = wants(lab, sendout)
    again = ResumeSendout(sendout=sendout)
    lab.publish(again)
    eventually(lambda: is_noted(lab, again), "the resume to be noted")
    if all(want.available >= want.needed for want in before):
        lab.wait_finished(sendout)
    else:
        assert lab.state(sendout) == "interrupted"
        after = wants(lab, sendout)
        assert [want.missing for want in after] == [max(0, want.needed - want.available) for want in before]
        assert [want.available for want in after] == [want.available for want in before]
        holds_nothing(lab, sendout)


def fill_up(lab: Lab, of: Rush, sendouts: Sequence[UUID]) -> None:
    """Import exactly what these sendouts lack together."""
    needed = Counter[str]()
    for sendout in sendouts:
        needed.update({want.name: want.needed for want in wants(lab, sendout)})
    for name, amount in needed.items():
        found = lab.list_named(name)
        lab.import_codes(name, of.stock[name][found.total : found.total + amount - found.available])


def test_shortage_races(lab: Lab) -> None:
    """All lists or none: a sendout has finished, or is interrupted, holds nothing and has mailed nobody; numbers exact.

    50 sendouts (12 in the short form) over 3 lists with 40 % of their codes there and 20 % imported meanwhile. Then
    exactly what lacks is imported and everything resumed by three clients at once, twice: all finish, all lists are
    empty.
    """
    with lab.fleet(size(short=2, long=4)) as fleet:
        of = rush(lab, size(short=12, long=50), size_of_groups())
        commands: list[Command] = [*of.sendouts, *of.imports]
        lab.random.shuffle(commands)
        publish_from_everywhere(lab, commands)
        comes_to_rest(lab, of)
        left = interrupted(lab, of.ids)
        assert 0 < len(left) < len(of.ids)
        for sendout in left:
            holds_nothing(lab, sendout)
        assert not {mail.delivery[0] for mail in read(lab.sink.ledger)} & {*left}  # O5
        for sendout in left:
            is_decided_by_the_numbers(lab, sendout)
        left = interrupted(lab, of.ids)
        fill_up(lab, of, left)
        publish_from_everywhere(lab, [ResumeSendout(sendout=sendout) for sendout in left * 2])
        lab.wait_finished(*of.ids)
        assert [lab.list_named(name).available for name in LISTS] == [0, 0, 0]
        assert len(fleet.workers) == size(short=2, long=4)
    lab.check("shortage races, resumed twice at once", rounds=len(of.ids), rejected=len(left))


def size_of_groups() -> tuple[int, int]:
    return (5, 40) if size(short=1, long=0) else (50, 800)


# --- one file, imported twice at once -----------------------------------------------------------------------------

IMPORT_PLACES = [
    *(f"import.staged=kill@{times}" for times in (1, 3, 17, 18)),
    *(f"import.committed=kill@{times}" for times in (1, 2)),
    *(f"import.removing=kill@{times}" for times in (1, 2)),
    "import.claimed=kill",
    "import.complete=kill",
    "import.finished=kill",
]
LINE_CHARS = 195
MANY, FEW = 90_000, 8_000
"""17 MiB, two chunks of what only adds; 1.5 MiB, two chunks of what replaces."""
OLD = 500


@dataclass(frozen=True, slots=True)
class Twice:
    """Two imports of one file with so many lines, the second perhaps in the other order; or one, published thrice."""

    name: str
    modes: tuple[Mode, ...]
    lines: int
    turned: bool = False


CASES = (
    Twice("same", ("add", "add"), MANY),
    Twice("turned", ("add", "add"), size(short=FEW, long=MANY), turned=True),
    Twice("replaced", ("add", "replace"), size(short=FEW, long=MANY)),
    Twice("repeated", ("add",), size(short=FEW, long=MANY)),
)


def file_of(lab: Lab, name: str, codes: Sequence[str]) -> str:
    """The source of a file with these codes, each on a long line."""
    return lab.file(f"{name}.txt", "".join(f"{code}-{'X' * LINE_CHARS}"[:LINE_CHARS] + "\n" for code in codes)).as_uri()


def published(lab: Lab, case: Twice, round_: int) -> list[ImportCoupons]:
    """Its commands, into a list that has some other codes."""
    name = f"{case.name}-{round_}"
    lab.has(name, name, ["nobody@example.org"], {name: codes_of(f"old-{name}", OLD)})
    codes = codes_of(name, case.lines)
    sources = [file_of(lab, name, codes)] * 2
    if case.turned:
        sources[1] = file_of(lab, f"{name}-turned", codes[::-1])
    commands = [
        ImportCoupons(list=name, mode=mode, source=source) for mode, source in zip(case.modes, sources, strict=False)
    ]
    publish_from_everywhere(lab, commands if len(commands) > 1 else commands * CLIENTS)
    return commands


def all_end(lab: Lab, fleet: Fleet, imports: Sequence[UUID], places: Iterator[str]) -> None:
    """Meanwhile replace whoever has died at a failpoint by somebody who is going to die at the next one."""

    def states() -> list[str]:
        return [*map(lab.state, imports)]

    def all_finished() -> bool:
        if {*states()} == {"finished"}:
            return True
        for place, worker in enumerate(fleet.workers):
            if worker.is_dead:
                fleet.killed += 1
                fleet.replace(place, failpoints=next(places, ""))
        return False

    eventually(all_finished, "all imports to finish", within=END_SECONDS, seen=states)


def every_code_is_there_once(lab: Lab, case: Twice, commands: Sequence[ImportCoupons]) -> None:
    """Whoever took it; each import accounts for each of its lines, and the list's numbers are right."""
    jobs = lab.rows("SELECT * FROM import_job WHERE id = ANY ($1::uuid[])", [command.id for command in commands])
    assert [(job["state"], job["lines"]) for job in jobs] == [("finished", case.lines)] * len(case.modes)
    explained = (
        "SELECT coalesce(sum(cardinality(lines)), 0)::bigint AS lines FROM import_rejection WHERE import_id = $1"
    )
    for job in jobs:
        assert lab.rows(explained, job["id"]) == [{"lines": job["rejected"]}]
    old_left = 0 if "replace" in case.modes else OLD
    assert sum(job["added"] for job in jobs) == case.lines
    assert sum(job["removed"] for job in jobs) == OLD - old_left
    found = lab.list_named(commands[0].list or "")
    assert found.total == found.available == case.lines + old_left


def test_imports_of_one_file_at_once(lab: Lab, tmp_path: Path) -> None:
    """Two imports of a file, killed at any place: both end, every code is there once, every line accounted for.

    In the same order, in the other order, one that adds and one that replaces, and one command that comes three times.
    """
    kills = size(short=3, long=3 * len(IMPORT_PLACES))
    places = itertools.islice(itertools.cycle(lab.random.sample(IMPORT_PLACES, len(IMPORT_PLACES))), kills)
    rounds = size(short=1, long=3)
    with lab.fleet(2, import_folder=tmp_path, failpoints=next(places)) as fleet:
        for round_ in range(rounds):
            commands = {case: published(lab, case, round_) for case in CASES}
            ids = [command.id for each in commands.values() for command in each]
            all_end(lab, fleet, ids, places)
            for case in CASES:
                every_code_is_there_once(lab, case, commands[case])
        assert fleet.killed
    lab.check("two imports of one file, killed anywhere", rounds=fleet.killed)
