"""Commands with `--wait` show the progress where stderr is not a terminal, and `--timeout` ends them."""

import os
import re
import signal

from tests.acceptance.processes import NOT_ALL_MAILED, STILL_RUNNING, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes


def test_a_waiting_command_prints_a_line_every_ten_seconds_until_its_timeout(shop: Shop) -> None:
    """Each line is plain text on stderr, for sendouts and imports. The exit code after the timeout is 6, the last line
    has the command that follows the job again, and stdout stays empty.
    """
    shop.has("slow", "slow", addresses(200), {"slow": codes("SLOW", 200)})
    shop.coupons("list", "create", "other")
    with shop.worker("sendout", "deliver"), shop.worker("import", failpoints="import.claimed=stop") as importer:
        sending = ("send", "--message", "slow", "--group", "slow", "--per-hour", 3_600, "--wait", "--timeout", "11s")
        importing = (*shop.importing("other", codes("OTHER", 5)), "--timeout", "11s", "--json")
        ends = [shop.begin(*sending), shop.begin(*importing)]
        sendout_end, import_end = (end() for end in ends)
        os.kill(importer.pid, signal.SIGCONT)
    (sendout,), (job,) = (
        shop.rows("SELECT id FROM sendout"),
        shop.rows("SELECT id FROM import_job ORDER BY created_at DESC LIMIT 1"),
    )
    again = "coupons: stopped waiting after 11 s; the job continues: follow it again with `coupons show"
    line, last = sendout_end.err.splitlines()
    assert re.fullmatch(r"sending: \d+ of 200 mails, .*sending", line)
    assert last == f"{again} {sendout['id']} --wait`"
    line, last = import_end.err.splitlines()
    assert line.startswith("importing: 0.0 bytes, 0 lines, ")
    assert last == f"{again} {job['id']} --wait`"
    assert [(end.code, end.out) for end in (sendout_end, import_end)] == [(STILL_RUNNING, "")] * 2


def test_show_waits_like_the_command_that_started_the_job(open_shop: Shop) -> None:
    """`show --wait` follows a sendout or an import, with the same result and exit code, also after its end."""
    open_shop.has("again", "again", [*addresses(3), "refuse.d@example.org"], {"again": []})
    imported = open_shop.coupons(*open_shop.importing("again", codes("AGAIN", 4))[:-1]).out.strip()
    shown = open_shop.coupons("show", imported, "--wait").out
    assert shown.splitlines()[0] == f"import {imported} into again finished: 4 lines, 4 added, 0 rejected"
    sendout = str(open_shop.begin_sending("again", "again"))
    for _ in range(2):
        found = open_shop.coupons("show", sendout, "--wait", "--timeout", "1m", "--json", code=NOT_ALL_MAILED).json
        assert (found["id"], found["sent"], found["refused"]) == (sendout, 3, 1)


def test_a_timeout_needs_a_unit_and_a_command_that_waits(open_shop: Shop) -> None:
    """Otherwise the usage is wrong, and no command is published."""
    sending = ("send", "--message", "none", "--group", "none")
    assert "--timeout needs --wait" in open_shop.coupons(*sending, "--timeout", "5s", code=WRONG_USAGE).err
    assert "write 30s, 10m" in open_shop.coupons(*sending, "--wait", "--timeout", "5", code=WRONG_USAGE).err
