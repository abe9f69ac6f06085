"""Concurrent sendouts, imports and clients that compete for the same codes."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from coupons.commands import Command, ImportCoupons, ResumeSendout, StartSendout
from coupons.states import ImportMode
from tests.acceptance.system import letter
from tests.faults.lab import END_SECONDS, Fleet, Lab, codes_of, size
from tests.faults.oracle import read
from tests.waiting import eventually

CLIENTS = 3


def publish_concurrently(lab: Lab, commands: Sequence[Command]) -> None:
    """Publish the commands from several concurrent clients."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda part: lab.publish(*part), [commands[client::CLIENTS] for client in range(CLIENTS)]))


# --- more demand than stock ----------------------------------------------------------------------------------------

LISTS = ("race-a", "race-b", "race-c")
OF_SUBSETS = [subset for count in (1, 2, 3) for subset in itertools.combinations(LISTS, count)]
SHARE_IN_STOCK, SHARE_IMPORTED = 0.4, 0.2
"""Shares of all codes that the sendouts need: those available at the start, and those imported in the meantime."""
CODES_PER_IMPORT = 100


@dataclass(frozen=True, slots=True)
class Audience:
    """The lists of a sendout and its number of recipients.

    If it is divided, the first half of the recipients get a code of the first list, and the others one of each other
    list.
    """

    lists: tuple[str, ...]
    size: int
    is_divided: bool

    @property
    def needs(self) -> Mapping[str, int]:
        if not self.is_divided:
            return dict.fromkeys(self.lists, self.size)
        first, *others = self.lists
        half = self.size // 2
        return {first: half, **dict.fromkeys(others, self.size - half)}

    def addresses(self, number: int) -> list[str]:
        half = self.size // 2
        return [f"race{number}-{'first' if each < half else 'other'}{each}@example.org" for each in range(self.size)]

    def text(self) -> str:
        if not self.is_divided:
            return letter(*self.lists)
        first, *others = self.lists
        return f'{{% if "first" in email %}}{letter(first)}{{% else %}}{letter(*others)}{{% endif %}}'


@dataclass(frozen=True, slots=True)
class Rush:
    """Sendouts that need more codes than the lists have, and imports that bring some of them in the meantime."""

    sendouts: Sequence[StartSendout]
    imports: Sequence[ImportCoupons]
    stock: Mapping[str, Sequence[str]]
    """All codes that the sendouts need of each list. The last codes are not among the imports."""
    audiences: Mapping[UUID, Audience]

    @property
    def ids(self) -> list[UUID]:
        return [sendout.id for sendout in self.sendouts]


def rush(lab: Lab, sendouts: int, recipients: tuple[int, int]) -> Rush:
    """Make commands for sendouts with one, two or three lists and a random number of recipients (from, to)."""
    chance = random.Random(5)
    chosen = [
        Audience(
            lists := chance.choice(OF_SUBSETS), chance.randint(*recipients), len(lists) > 1 and chance.random() < 0.5
        )
        for _ in range(sendouts)
    ]
    demand = Counter({name: sum(each.needs.get(name, 0) for each in chosen) for name in LISTS})
    stock = {name: codes_of(name, demand[name]) for name in LISTS}
    begun = {name: int(SHARE_IN_STOCK * demand[name]) for name in LISTS}
    brought = {name: int((SHARE_IN_STOCK + SHARE_IMPORTED) * demand[name]) for name in LISTS}
    lab.has("stock", "stock", ["other@example.org"], {name: stock[name][: begun[name]] for name in LISTS})
    for number, each in enumerate(chosen):
        lab.has(f"race-{number}", f"race-{number}", each.addresses(number), {}, text=each.text())
    imports = [
        ImportCoupons(list=name, codes=tuple(stock[name][start : min(start + CODES_PER_IMPORT, brought[name])]))
        for name in LISTS
        for start in range(begun[name], brought[name], CODES_PER_IMPORT)
    ]
    commands = [StartSendout(message=f"race-{number}", group=f"race-{number}") for number in range(sendouts)]
    return Rush(commands, imports, stock, {command.id: each for command, each in zip(commands, chosen, strict=True)})


@dataclass(frozen=True, slots=True)
class Need:
    """The numbers of codes of a sendout in one of its lists."""

    name: str
    needed: int
    held: int
    missing: int
    available: int


def needs(lab: Lab, sendout: UUID) -> list[Need]:
    found = lab.rows(
        "SELECT l.name, needed, reserved AS held, missing, available FROM sendout_list "
        "JOIN coupon_list l ON l.id = list_id WHERE sendout_id = $1",
        sendout,
    )
    return [Need(**row) for row in found]


def list_interrupted(lab: Lab, sendouts: Sequence[UUID]) -> list[UUID]:
    return [sendout for sendout in sendouts if lab.state(sendout) == "interrupted"]


def wait_at_rest(lab: Lab, of: Rush) -> None:
    """Wait until all imports are finished and all sendouts are finished or interrupted."""
    lab.wait_finished(*(each.id for each in of.imports))
    states = "SELECT state FROM sendout WHERE state NOT IN ('finished', 'interrupted')"
    eventually(
        lambda: len(lab.rows("SELECT FROM sendout")) == len(of.sendouts) and not lab.rows(states),
        "all sendouts to rest",
    )


def assert_interrupted(lab: Lab, sendout: UUID) -> None:
    """Check that the sendout has recorded its missing codes, has reserved no code and has sent no mail."""
    of_each = needs(lab, sendout)
    assert any(need.missing for need in of_each)
    assert all(need.held == 0 and need.missing <= need.needed for need in of_each), of_each
    assert set(lab.deliveries(sendout).values()) == {"pending"}


def assert_resume_follows_numbers(lab: Lab, sendout: UUID) -> None:
    """Resume a sendout without competition. It must continue if every list has enough codes, else stay interrupted."""
    before = needs(lab, sendout)
    again = ResumeSendout(sendout=sendout)
    lab.publish(again)
    eventually(lambda: lab.is_recorded(again), "the resume command to be recorded")
    if all(need.available >= need.needed for need in before):
        lab.wait_finished(sendout)
    else:
        assert lab.state(sendout) == "interrupted"
        after = needs(lab, sendout)
        assert [need.missing for need in after] == [max(0, need.needed - need.available) for need in before]
        assert [need.available for need in after] == [need.available for need in before]
        assert_interrupted(lab, sendout)


def import_missing(lab: Lab, of: Rush, sendouts: Sequence[UUID]) -> None:
    """Import exactly the codes that these sendouts lack in total."""
    needed = Counter[str]()
    for sendout in sendouts:
        needed.update({need.name: need.needed for need in needs(lab, sendout)})
    for name, amount in needed.items():
        found = lab.get_list(name)
        lab.import_codes(name, of.stock[name][found.total : found.total + amount - found.available])


def test_racing_sendouts_reserve_all_lists_or_none(lab: Lab) -> None:
    """A sendout either finishes, or is interrupted, reserves no code and sends no mail.

    Some sendouts print a code of one list for the first half of their recipients and codes of other lists for the rest:
    each sendout needs exactly the codes that its mails print.

    50 sendouts (12 in the short form) compete for 3 lists. 40 % of the codes are available, and 20 % are imported in
    the meantime. Then exactly the missing codes are imported, and three clients resume every interrupted sendout twice:
    all sendouts finish and all lists are empty.
    """
    with lab.fleet(size(short=2, long=4)) as fleet:
        of = rush(lab, size(short=12, long=50), group_sizes())
        commands: list[Command] = [*of.sendouts, *of.imports]
        lab.random.shuffle(commands)
        publish_concurrently(lab, commands)
        wait_at_rest(lab, of)
        for sendout, audience in of.audiences.items():
            assert {need.name: need.needed for need in needs(lab, sendout)} == audience.needs
        left = list_interrupted(lab, of.ids)
        assert 0 < len(left) < len(of.ids)
        for sendout in left:
            assert_interrupted(lab, sendout)
        assert not {mail.delivery[0] for mail in read(lab.sink.ledger)} & {*left}  # O5
        for sendout in left:
            assert_resume_follows_numbers(lab, sendout)
        left = list_interrupted(lab, of.ids)
        import_missing(lab, of, left)
        publish_concurrently(lab, [ResumeSendout(sendout=sendout) for sendout in left * 2])
        lab.wait_finished(*of.ids)
        assert [lab.get_list(name).available for name in LISTS] == [0, 0, 0]
        assert len(fleet.workers) == size(short=2, long=4)
    lab.check("shortage races, resumed twice concurrently", rounds=len(of.ids), rejected=len(left))


def group_sizes() -> tuple[int, int]:
    return (5, 40) if size(short=1, long=0) else (50, 800)


# --- the same codes for several lists ------------------------------------------------------------------------------

SPELLINGS: Sequence[Callable[[str], str]] = (str.upper, str.lower, str.upper)


def start_mixed(lab: Lab, sendouts: int, recipients: int) -> tuple[list[StartSendout], list[ImportCoupons]]:
    """Make sendouts of one list each, and imports of the same codes into each list, for half of the recipients.

    The imports have other spellings and orders, so that each list gets some of the codes.
    """
    names = [f"same-{number}" for number in range(len(SPELLINGS))]
    lab.has("same", "same", ["other@example.org"], {name: [] for name in names})
    messages = [f"same-{number}" for number in range(sendouts)]
    for number, message in enumerate(messages):
        people = [f"same{number}-{each}@example.org" for each in range(recipients)]
        lab.has(message, message, people, {}, text=letter(names[number % len(names)]))
    codes = [*codes_of("same", sendouts * recipients // 2)]
    imports = []
    for name, spell in zip(names, SPELLINGS, strict=True):
        lab.random.shuffle(codes)
        imports += [
            ImportCoupons(list=name, codes=tuple(map(spell, codes[start : start + CODES_PER_IMPORT])))
            for start in range(0, len(codes), CODES_PER_IMPORT)
        ]
    return [StartSendout(message=message, group=message, auto_resume=True) for message in messages], imports


def test_codes_imported_into_several_lists_reach_one_recipient_each(lab: Lab) -> None:
    """Three clients import the same codes into three lists in other spellings, while sendouts of all lists need them.

    Each code gets into one list. The sendouts lack half of the codes; when these are imported, all of them finish.
    """
    sendouts, recipients = size(short=6, long=30), size(short=40, long=400)
    with lab.fleet(2):
        of, imports = start_mixed(lab, sendouts, recipients)
        commands: list[Command] = [*of, *imports]
        lab.random.shuffle(commands)
        publish_concurrently(lab, commands)
        lab.wait_finished(*(each.id for each in imports))
        jobs = lab.rows("SELECT added, lines FROM import_job WHERE list_id IS NOT NULL")
        distinct = sendouts * recipients // 2
        assert sum(job["added"] for job in jobs) == distinct
        assert sum(job["lines"] for job in jobs) == distinct * len(SPELLINGS)
        ids = [each.id for each in of]
        eventually(lambda: {*map(lab.state, ids)} <= {"finished", "interrupted"}, "the sendouts to rest")
        left = list_interrupted(lab, ids)
        assert left
        for number, sendout in enumerate(left):
            (need,) = needs(lab, sendout)
            lab.import_codes(need.name, codes_of(f"more-{number}", need.needed))
        lab.wait_finished(*ids)
    verdict = lab.check("the same codes for several lists at once", rounds=len(imports))
    assert verdict.mails == sendouts * recipients


# --- one file, imported twice at once -----------------------------------------------------------------------------

IMPORT_FAILPOINTS = [
    *(f"import.staged=kill@{times}" for times in (1, 3, 17, 18)),
    *(f"import.committed=kill@{times}" for times in (1, 2)),
    *(f"import.removing=kill@{times}" for times in (1, 2)),
    "import.claimed=kill",
    "import.complete=kill",
    "import.finished=kill",
]
LINE_CHARS = 195
MANY, FEW = 90_000, 8_000
"""Numbers of lines that make two chunks in mode add (17 MiB) and in mode replace (1.5 MiB)."""
OLD = 500


@dataclass(frozen=True, slots=True)
class ImportCase:
    """Two imports of the same codes, or with one mode a single import that is published three times.

    If `reversed`, the second import has the codes in reverse order. If `several`, each import is into another list, and
    the codes of the second one are in lower case.
    """

    name: str
    modes: tuple[ImportMode, ...]
    lines: int
    reversed: bool = False
    several: bool = False


CASES = (
    ImportCase("same", (ImportMode.ADD, ImportMode.ADD), MANY),
    ImportCase("reversed", (ImportMode.ADD, ImportMode.ADD), size(short=FEW, long=MANY), reversed=True),
    ImportCase("replaced", (ImportMode.ADD, ImportMode.REPLACE), size(short=FEW, long=MANY)),
    ImportCase("repeated", (ImportMode.ADD,), size(short=FEW, long=MANY)),
    ImportCase("several", (ImportMode.ADD, ImportMode.ADD), size(short=FEW, long=MANY), several=True),
)


def write_codes(lab: Lab, name: str, codes: Sequence[str]) -> str:
    """Write a file with these codes on long lines; return its URI."""
    return lab.file(f"{name}.txt", "".join(f"{code}-{'X' * LINE_CHARS}"[:LINE_CHARS] + "\n" for code in codes)).as_uri()


def publish_case(lab: Lab, case: ImportCase, round_: int) -> list[ImportCoupons]:
    """Publish the imports of a case. Each list already has other codes."""
    name = f"{case.name}-{round_}"
    names = [name, f"{name}-other"] if case.several else [name, name]
    for each in dict.fromkeys(names):
        lab.has(each, each, ["other@example.org"], {each: codes_of(f"old-{each}", OLD)})
    codes = codes_of(name, case.lines)
    sources = [write_codes(lab, name, codes)] * 2
    if case.reversed:
        sources[1] = write_codes(lab, f"{name}-reversed", codes[::-1])
    if case.several:
        sources[1] = write_codes(lab, f"{name}-other", [code.lower() for code in codes])
    commands = [
        ImportCoupons(list=into, mode=mode, source=source, confirmed=True, allow_empty=True)
        for into, mode, source in zip(names, case.modes, sources, strict=False)
    ]
    publish_concurrently(lab, commands if len(commands) > 1 else commands * CLIENTS)
    return commands


def finish_despite_kills(lab: Lab, fleet: Fleet, imports: Sequence[UUID], failpoints: Iterator[str]) -> None:
    """Wait until all imports finish. Replace each worker that died at a failpoint with one that dies at the next."""

    def states() -> list[str]:
        return [*map(lab.state, imports)]

    def all_finished() -> bool:
        if {*states()} == {"finished"}:
            return True
        for place, worker in enumerate(fleet.workers):
            if worker.is_dead:
                fleet.killed += 1
                fleet.replace(place, failpoints=next(failpoints, ""))
        return False

    eventually(all_finished, "all imports to finish", within=END_SECONDS, seen=states)


def assert_imported_once(lab: Lab, case: ImportCase, commands: Sequence[ImportCoupons]) -> None:
    """Check that each code is in one list once, each import accounts for all its lines, and the counters are right."""
    jobs = lab.rows("SELECT * FROM import_job WHERE id = ANY ($1::uuid[])", [command.id for command in commands])
    assert [(job["state"], job["lines"]) for job in jobs] == [("finished", case.lines)] * len(case.modes)
    explained = (
        "SELECT coalesce(sum(cardinality(lines)), 0)::bigint AS lines FROM import_rejection WHERE import_id = $1"
    )
    for job in jobs:
        assert lab.rows(explained, job["id"]) == [{"lines": job["rejected"]}]
    names = {command.list or "" for command in commands}
    old_left = 0 if ImportMode.REPLACE in case.modes else OLD * len(names)
    assert sum(job["added"] for job in jobs) == case.lines
    assert sum(job["removed"] for job in jobs) == OLD * len(names) - old_left
    found = [lab.get_list(name) for name in names]
    assert sum(each.total for each in found) == case.lines + old_left
    assert all(each.available == each.total for each in found)


def test_concurrent_imports_of_one_file_add_each_code_once(lab: Lab, tmp_path: Path) -> None:
    """Two imports of one file add each code once and finish, although workers are killed at failpoints.

    The cases are: same order, reversed order, one import in mode replace, one command published three times, two lists.
    """
    kills = size(short=3, long=3 * len(IMPORT_FAILPOINTS))
    failpoints = itertools.islice(itertools.cycle(lab.random.sample(IMPORT_FAILPOINTS, len(IMPORT_FAILPOINTS))), kills)
    rounds = size(short=1, long=3)
    with lab.fleet(2, import_folder=tmp_path, failpoints=next(failpoints)) as fleet:
        for round_ in range(rounds):
            commands = {case: publish_case(lab, case, round_) for case in CASES}
            ids = [command.id for each in commands.values() for command in each]
            finish_despite_kills(lab, fleet, ids, failpoints)
            for case in CASES:
                assert_imported_once(lab, case, commands[case])
        assert fleet.killed
    lab.check("two concurrent imports of one file, workers killed", rounds=fleet.killed)
