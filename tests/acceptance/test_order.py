"""Commands act in the order that their publisher means: imported recipients get imported codes."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from coupons.commands import Command, ImportCoupons, ResumeSendout, StartSendout
from coupons.database import connect
from coupons.states import ImportMode
from producers.client import Publisher
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import FAILED, Worker
from tests.acceptance.system import Shop, addresses, codes
from tests.factories import add_list, save_message
from tests.waiting import eventually

RUNS, RECIPIENTS = 50, 3
MAX_DELAY_SECONDS = 0.1
NO_SWEEP_SECONDS = 600
WELL_BELOW_A_SWEEP = timedelta(seconds=5)
"""Usually 0.02 s if one process has both roles, and up to 0.5 s otherwise; the limit is for a busy machine."""


@dataclass(frozen=True, slots=True)
class Run:
    """README's sequence with a list, a group and a message of its own: import codes, import the group, send."""

    commands: tuple[ImportCoupons, ImportCoupons, StartSendout]
    recipients: list[str]
    codes: list[str]

    @property
    def sendout(self) -> UUID:
        return self.commands[-1].id


def create_run(number: int, folder: Path) -> Run:
    """Write the file of the run's recipients, and return its commands."""
    name, own = f"run-{number}", slice(number * RECIPIENTS, (number + 1) * RECIPIENTS)
    recipients, spring = addresses(RUNS * RECIPIENTS)[own], codes("SPRING", RUNS * RECIPIENTS)[own]
    write_recipients(folder / f"{name}.csv", recipients)
    fill = ImportCoupons(list=name, codes=tuple(spring))
    group = ImportCoupons(group=name, source=f"file:{name}.csv")
    start = StartSendout(message=name, group=name, after=(fill.id, group.id))
    return Run((fill, group, start), recipients, spring)


def write_recipients(file: Path, recipients: Sequence[str]) -> None:
    file.write_text("email,first_name\n" + "".join(f"{each},Ada\n" for each in recipients))


async def create_lists_and_messages(database_url: str, runs: Sequence[Run]) -> None:
    async with connect(database_url) as connection:
        for name in (run.commands[-1].message for run in runs):
            await add_list(connection, name)
            await save_message(connection, name, name, html="<p>Yours</p>")


async def publish_all(broker_url: str, runs: Sequence[Run]) -> None:
    """Publish the runs at the same time: in order, in order with delays, shuffled, or shuffled with delays."""
    chance = random.Random(12)
    async with Publisher.connect(broker_url) as publisher, asyncio.TaskGroup() as group:
        for number, run in enumerate(runs):
            commands: list[Command] = [*run.commands]
            if number % 4 >= 2:
                chance.shuffle(commands)
            delays = [chance.uniform(0, MAX_DELAY_SECONDS) if number % 2 else 0 for _ in commands]
            group.create_task(publish_slowly(publisher, list(zip(delays, commands, strict=True))))


async def publish_slowly(publisher: Publisher, commands: Sequence[tuple[float, Command]]) -> None:
    for delay, command in commands:
        await asyncio.sleep(delay)
        await publisher.publish(command)


def test_the_sequence_of_the_readme_always_sends_the_imported_codes(shop: Shop, tmp_path: Path) -> None:
    """Codes, group and sendout are published together 50 times. However the commands arrive at two workers, each
    recipient gets a code of the run's own list, and no command is rejected.
    """
    runs = [create_run(number, tmp_path) for number in range(RUNS)]
    asyncio.run(create_lists_and_messages(shop.services.database_url, runs))
    with shop.worker(import_folder=tmp_path), shop.worker(import_folder=tmp_path):
        asyncio.run(publish_all(shop.services.broker_url, runs))
        finished = "SELECT FROM sendout WHERE state = 'finished'"
        eventually(lambda: len(shop.rows(finished)) == RUNS, "all sendouts to finish")
    mails = shop.mails()
    for run in runs:
        assert_own_codes([mail for mail in mails if mail.is_of(run.sendout)], run.recipients, run.codes)
    assert len(mails) == RUNS * RECIPIENTS
    assert shop.dead() == []


@contextmanager
def stopped_importer(shop: Shop, folder: Path) -> Iterator[Worker]:
    """Run a worker with the role import, which stops as soon as it has claimed an import."""
    with shop.worker("import", import_folder=folder, failpoints="import.claimed=stop") as worker:
        try:
            yield worker
        finally:
            os.kill(worker.pid, signal.SIGCONT)


def accept(shop: Shop, command: ImportCoupons) -> None:
    shop.publish(command)
    shop.becomes("running", command.id)


def replace_customers(shop: Shop, folder: Path, present: Sequence[str], others: Sequence[str]) -> ImportCoupons:
    """Create a group of `others`, and return a command that replaces them by the recipients that are `present`."""
    shop.has("spring-voucher", "customers", others, {"spring-10": codes("SPRING", len(present))})
    write_recipients(folder / "customers.csv", present)
    return ImportCoupons(group="customers", source="file:customers.csv", mode=ImportMode.REPLACE)


def assert_started_soon(shop: Shop, sendout: UUID, command: ImportCoupons) -> None:
    """Check that the sendout did not wait for a sweep after the import had ended."""
    (row,) = shop.rows(
        "SELECT s.started_at - j.finished_at AS delay FROM sendout s, import_job j WHERE s.id = $1 AND j.id = $2",
        sendout,
        command.id,
    )
    assert row["delay"] < WELL_BELOW_A_SWEEP


def test_a_sendout_after_a_replace_mails_only_the_recipients_in_the_file(shop: Shop, tmp_path: Path) -> None:
    """The sendout waits for the import that was accepted before it, shows this, and starts right after it."""
    present, others = addresses(200), [f"other{number}@example.org" for number in range(100)]
    command = replace_customers(shop, tmp_path, present, others)
    sendout = StartSendout(message="spring-voucher", group="customers")
    with shop.worker("sendout", "deliver", sweep_seconds=NO_SWEEP_SECONDS), stopped_importer(shop, tmp_path) as worker:
        accept(shop, command)
        shop.publish(sendout)
        shop.becomes("queued", sendout.id)
        waiting = f"waiting for import {command.id} into customers"
        assert f"  {waiting}\n" in shop.coupons("show", sendout.id).out
        assert waiting in shop.coupons("outbox").out
        shown = shop.coupons("show", sendout.id, "--json").json["sendout"]
        assert (shown["state"], shown["is_waiting"]) == ("queued", True)
        assert shown["wait"]["imports"] == [{"id": str(command.id), "target": "customers", "percent": None}]
        os.kill(worker.pid, signal.SIGCONT)
        shop.becomes("finished", sendout.id)
    assert_started_soon(shop, sendout.id, command)
    assert_own_codes(shop.mails(), present, codes("SPRING", len(present)))


def test_a_sendout_with_alternative_text_waits_for_the_codes_of_a_running_import(shop: Shop, tmp_path: Path) -> None:
    """No recipient gets the alternative text while codes for all of them are being imported."""
    customers, spring = addresses(100), codes("SPRING", 100)
    shop.has("spring-voucher", "customers", customers, {"spring-10": []}, alternative_text="Sorry, all gone.")
    command = ImportCoupons(list="spring-10", codes=tuple(spring))
    sendout = StartSendout(message="spring-voucher", group="customers")
    with shop.worker("sendout", "deliver", sweep_seconds=NO_SWEEP_SECONDS), stopped_importer(shop, tmp_path) as worker:
        accept(shop, command)
        shop.publish(sendout)
        shop.becomes("queued", sendout.id)
        os.kill(worker.pid, signal.SIGCONT)
        shop.becomes("finished", sendout.id)
    assert_own_codes(shop.mails(), customers, spring)


def test_a_sendout_starts_at_once_when_its_import_ends_in_the_same_worker(shop: Shop) -> None:
    """The import wakes the role of sendouts, without the broker and without a sweep."""
    shop.has("spring-voucher", "customers", addresses(10), {"spring-10": []})
    command = ImportCoupons(list="spring-10", codes=tuple(codes("SPRING", 10)))
    sendout = StartSendout(message="spring-voucher", group="customers", after=(command.id,))
    with shop.worker(sweep_seconds=NO_SWEEP_SECONDS):
        shop.publish(sendout)
        shop.becomes("queued", sendout.id)
        shop.publish(command)
        shop.becomes("finished", sendout.id)
    assert_started_soon(shop, sendout.id, command)
    assert len(shop.mails()) == 10


def test_a_resume_waits_for_the_import_of_the_missing_codes(shop: Shop, tmp_path: Path) -> None:
    """`resume --after` and `--wait` follow the sendout from interrupted to finished."""
    customers, spring = addresses(10), codes("SPRING", 10)
    shop.has("spring-voucher", "customers", customers, {"spring-10": spring[:4]})
    command = ImportCoupons(list="spring-10", codes=tuple(spring[4:]))
    with shop.worker("sendout", "deliver"), stopped_importer(shop, tmp_path) as worker:
        sendout = shop.begin_sending("spring-voucher", "customers")
        shop.becomes("interrupted", sendout)
        end = shop.begin("resume", sendout, "--after", command.id, "--wait", "--json")
        eventually(lambda: "has not arrived yet" in shop.coupons("show", sendout).out, "the resume to wait")
        accept(shop, command)
        assert "resume requested, waiting for import" in shop.coupons("outbox").out
        os.kill(worker.pid, signal.SIGCONT)
        assert end().json["state"] == "finished"
    assert_own_codes(shop.mails(), customers, spring)


def test_cancelling_the_import_fails_the_sendout_that_needs_it(shop: Shop, tmp_path: Path) -> None:
    """`send --after --wait` reports the reason as soon as an operator has cancelled the import, without a sweep."""
    shop.has("spring-voucher", "customers", addresses(3), {"spring-10": codes("SPRING", 3)})
    command = ImportCoupons(list="spring-10", codes=("MORE-00001",))
    with shop.worker("sendout", sweep_seconds=NO_SWEEP_SECONDS), stopped_importer(shop, tmp_path):
        accept(shop, command)
        send = ("send", "--message", "spring-voucher", "--group", "customers", "--after", command.id, "--wait")
        end = shop.begin(*send)
        eventually(lambda: shop.rows("SELECT FROM sendout_wait"), "the sendout to wait")
        shop.coupons("cancel", command.id)
        result = end()
    reason = f"import {command.id} into spring-10 was cancelled"
    assert (result.code, reason in result.out) == (FAILED, True)
    assert f"after: {reason}" in shop.coupons(*send, code=FAILED).err


def test_a_command_whose_import_does_not_arrive_is_dead_lettered(shop: Shop) -> None:
    """The sendout fails, and the command is in the dead queue with its reason, although workers die on the way."""
    shop.has("spring-voucher", "customers", addresses(3), {"spring-10": codes("SPRING", 3)})
    missing = uuid4()
    sendout = StartSendout(message="spring-voucher", group="customers", after=(missing,))
    for failpoint in ("wait.ended", "wait.dead_lettered"):
        with shop.worker(after_seconds=0.1, failpoints=f"{failpoint}=kill") as worker:
            if failpoint == "wait.ended":
                shop.publish(sendout)
            eventually(lambda: worker.is_dead, f"a kill at {failpoint}")
    with shop.worker():
        eventually(lambda: not shop.rows("SELECT FROM dead_letter"), "the command to be dead-lettered")
    reason = f"import {missing} did not arrive in time (COUPONS_AFTER_SECONDS)"
    assert {(each.reason, each.body) for each in shop.dead()} == {(reason, sendout.body())}
    (row,) = shop.rows("SELECT state, reason FROM sendout")
    assert (row["state"], row["reason"]) == ("failed", reason)
    assert shop.mails() == []


@pytest.mark.parametrize("resumes", [False, True])
def test_a_worker_that_dies_when_a_wait_ends_loses_no_mail(shop: Shop, resumes: bool) -> None:
    """Another worker prepares the sendout, or sends the mails of the resumed one."""
    customers, spring = addresses(5), codes("SPRING", 5)
    command = ImportCoupons(list="spring-10", codes=tuple(spring[4:]))
    shop.has("spring-voucher", "customers", customers, {"spring-10": spring[:4]})
    with shop.worker(failpoints="wait.ended=kill") as worker:
        if resumes:
            sendout = shop.begin_sending("spring-voucher", "customers")
            shop.becomes("interrupted", sendout)
            shop.publish(ResumeSendout(sendout=sendout, after=(command.id,)), command)
        else:
            start = StartSendout(message="spring-voucher", group="customers", after=(command.id,))
            sendout = start.id
            shop.publish(start, command)
        eventually(lambda: worker.is_dead, "a kill at wait.ended")
    with shop.worker(sweep_seconds=1):
        shop.becomes("finished", sendout)
    assert_own_codes(shop.mails(), customers, spring)
