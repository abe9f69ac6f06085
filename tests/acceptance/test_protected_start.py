"""What an operator starts is what they meant: a check in numbers, a question on a terminal, a first part."""

import os
import subprocess
import sys
from typing import Any

from tests.acceptance.processes import FAILED, INTERRUPTED, SETTINGS, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes

TIER = '{{% if tier == "gold" %}}{{{{ coupon("{0}-gold") }}}}{{% else %}}{{{{ coupon("{0}-basic") }}}}{{% endif %}}\n'


def sending(name: str, *options: object) -> tuple[object, ...]:
    return ("send", "--message", name, "--group", name, *options)


def stock_tiers(shop: Shop, name: str, *, gold: int, shortage: str = "pause") -> None:
    """Create two lists, a group of 4 gold and 8 silver recipients, and a message with a condition."""
    text = ("--shortage", shortage, "--alternative-text", "None left.") if shortage == "text" else ()
    rows = "".join(f"c{n}@example.org;{'gold' if n % 3 == 0 else 'silver'}\n" for n in range(12))
    people = shop.file(f"{name}.csv", f"email;tier\n{rows}")
    shop.together(
        ("group", "import", people, "--group", name, "--wait"),
        ("list", "create", f"{name}-gold", *text),
        ("list", "create", f"{name}-basic", *text),
    )
    shop.together(
        shop.importing(f"{name}-gold", codes(f"{name}GOLD".upper(), gold)),
        shop.importing(f"{name}-basic", codes(f"{name}BASIC".upper(), 8)),
    )
    shop.coupons(
        "message", "save", name, "--subject", "Hi", "--text", shop.file(f"{name}.txt", TIER.format(name))
    )  # fmt: skip


def assert_equal(check: Any, sendout: Any) -> None:
    """Compare the figures of a check with those of the sendout that then ran."""
    assert check["outcome"]["state"] == ("sending" if sendout["state"] == "finished" else sendout["state"])
    assert check["audience"]["recipients"] == sendout["recipients"]
    assert check["audience"]["left_out"] == sendout["already_mailed"]
    figures = [{each["name"]: (each["needed"], each["missing"]) for each in of["lists"]} for of in (check, sendout)]
    assert figures[0] == figures[1]


def test_the_check_is_what_the_sendout_does(open_shop: Shop) -> None:
    """A short pause list, and a short text list with conditions. The exit codes are those of `send --wait`."""
    stock_tiers(open_shop, "checked", gold=3)
    shown = open_shop.coupons(*sending("checked", "--check"), code=INTERRUPTED).out
    assert "message checked, version 1, from Garden Shop <shop@example.org>, to group checked" in shown
    assert "  12 recipients\n  0 already got the message in another sendout" in shown
    assert "  list checked-gold: 4 needed, 3 available, 1 missing" in shown
    assert "the sendout would be interrupted: list checked-gold: 4 needed, 3 available, 1 missing" in shown
    check = open_shop.coupons(*sending("checked", "--check", "--json"), code=INTERRUPTED).json
    assert_equal(check, open_shop.send("checked", "checked", code=INTERRUPTED))

    stock_tiers(open_shop, "texted", gold=3, shortage="text")
    result = open_shop.coupons(*sending("texted", "--check", "--per-hour", 60))
    assert "1 missing (these recipients get the alternative text)" in result.out
    assert "at most 60 mails per hour: ends about" in result.out
    assert "the sendout would start sending now" in result.out
    later = open_shop.coupons(*sending("texted", "--check", "--first", 1, "--start-at", "2099-03-01T09:00Z")).out
    assert "pauses after the first recipient" in later
    assert "the sendout would wait for its start" in later
    check = open_shop.coupons(*sending("texted", "--check", "--json")).json
    assert_equal(check, open_shop.send("texted", "texted"))


def test_the_check_names_the_attributes_that_recipients_lack(open_shop: Shop) -> None:
    """Each attribute has its number of recipients. The address of --to cannot be set a second time."""
    people = open_shop.file("nameless.csv", "email;first_name\na@example.org;Ada\n")
    more = open_shop.file("more.csv", "email\nb@example.org\n")
    open_shop.coupons("group", "import", people, "--group", "nameless", "--wait")
    open_shop.coupons("group", "import", more, "--group", "nameless", "--wait")
    open_shop.coupons(
        "message", "save", "nameless", "--subject", "Hi", "--text", open_shop.file("t", "{{ first_name }}")
    )
    result = open_shop.coupons(*sending("nameless", "--check"), code=FAILED)
    assert "  1 lacks an attribute that the message needs (first_name: 1)" in result.out
    assert "the sendout would fail: 1 recipient lacks first_name" in result.out
    assert "  0 have an empty value of an attribute that the message needs" in result.out
    to = ("send", "--message", "nameless", "--to", "a@example.org", "--set", "email=b@example.org")
    assert "'email=b@example.org' is not needed: the address of --to" in open_shop.coupons(*to, code=WRONG_USAGE).err


def test_recipients_who_got_the_message_are_left_out_on_request(open_shop: Shop) -> None:
    """`send` warns about them. They are shown, and take no codes."""
    name = "again"
    open_shop.has(name, name, addresses(3), {name: codes("AGAIN", 9)})
    assert "warning" not in open_shop.coupons(*sending(name, "--wait")).err
    open_shop.importing_group(name, addresses(5))
    open_shop.coupons(*open_shop.importing_group(name, addresses(5)))
    check = open_shop.coupons(*sending(name, "--check", "--skip-already-mailed", "--json")).json
    assert (check["audience"]["already_mailed"], check["audience"]["code_holders"]) == (3, 0)
    sendout = open_shop.coupons(*sending(name, "--skip-already-mailed", "--wait", "--json")).json
    assert_equal(check, sendout)
    assert sorted(mail.recipient for mail in open_shop.mails(sendout["id"])) == sorted(addresses(5)[3:])
    assert open_shop.get_list(name).sent == 5
    shown = open_shop.coupons("show", sendout["id"]).out
    assert "3 recipients left out: already mailed in another sendout" in shown
    result = open_shop.coupons(*sending(name, "--skip-already-mailed", "--wait"), code=FAILED)
    assert "each of its recipients already got the message" in result.out
    open_shop.coupons(*sending(name, "--check", "--skip-already-mailed"), code=FAILED)
    warning = open_shop.coupons(*sending(name, "--wait"), code=INTERRUPTED).err
    assert "coupons: warning: 5 recipients already got message again; --skip-already-mailed leaves them out" in warning


def test_a_terminal_is_asked_before_a_sendout_starts(open_shop: Shop) -> None:
    """The question has the numbers of the check. Without a terminal and with --yes, nothing is asked."""
    name = "asked"
    open_shop.has(name, name, addresses(3), {name: codes("ASKED", 9)})
    before = open_shop.contents()
    result = open_shop.on_terminal(*sending(name), typed="n\n")
    assert result.code == FAILED
    assert "3 recipients" in result.err
    assert "list asked: 3 needed, 9 available, 0 missing" in result.err
    assert "Start this sendout? [y/N]" in result.err
    assert open_shop.contents() == before
    assert open_shop.on_terminal(*sending(name, "--wait"), typed="y\n").code == 0
    assert "Start" not in open_shop.on_terminal(*sending(name, "--yes", "--wait"), typed="\n").err
    assert open_shop.get_list(name).sent == 6
    nothing = open_shop.on_terminal(*sending(name, "--skip-already-mailed"), typed="y\n")
    assert "the sendout would fail: each of its recipients already got the message" in nothing.err


def test_the_demo_asks_nothing_at_a_terminal(open_shop: Shop) -> None:
    """It sends at once, as the operator who started it expects."""
    stock_tiers(open_shop, "shown", gold=4)
    arguments = tuple(map(str, sending("shown", "--wait")))
    program = (
        "from pathlib import PosixPath; from producers.demo import _Runner; from sandbox.services import Services; "
        f"_Runner({open_shop.services!r})(*{arguments!r})"
    )
    master, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | SETTINGS,
            stdin=terminal,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == 0, done.stderr
    assert "12 recipients: 12 sent" in done.stdout


def test_a_terminal_is_asked_before_codes_are_removed(open_shop: Shop) -> None:
    """The question has the numbers of the dry run. An import that only adds codes asks nothing."""
    name = "replaced"
    open_shop.coupons("list", "create", name)
    open_shop.import_codes(name, ["OLD-1", "OLD-2", "BOTH-1"])
    file = open_shop.file("new.txt", "NEW-1\nBOTH-1\n")
    replacing = ("import", file, "--list", name, "--mode", "replace")
    result = open_shop.on_terminal(*replacing, typed="n\n")
    assert result.code == FAILED
    assert "1 new" in result.err
    assert "Replace the available codes of list replaced? [y/N]" in result.err
    assert open_shop.get_list(name).total == 3
    assert open_shop.on_terminal(*replacing, "--wait", typed="y\n").code == 0
    assert open_shop.get_list(name).total == 2
    deleting = ("import", file, "--list", name, "--mode", "delete", "--wait")
    assert "Remove these lines from list replaced?" in open_shop.on_terminal(*deleting, typed="n\n").err
    assert open_shop.on_terminal(*deleting, "--yes", typed="\n").code == 0
    assert open_shop.get_list(name).total == 0
    piped = ("import", "-", "--list", name, "--mode", "replace")
    refused = open_shop.on_terminal(*piped)
    assert (refused.code, "because FILE is stdin: pass --yes" in refused.err) == (WRONG_USAGE, True)
    adding = ("import", file, "--list", name, "--wait")
    assert "[y/N]" not in open_shop.on_terminal(*adding, typed="\n", NO_COLOR="1").err
    people = open_shop.file("people.csv", "email\na@example.org\n")
    grouped = ("group", "import", people, "--group", name, "--mode", "replace")
    assert "Replace the recipients of group replaced?" in open_shop.on_terminal(*grouped, typed="n\n").err


def test_a_terminal_is_asked_before_a_cancellation(open_shop: Shop) -> None:
    """The question has the numbers of mails and of codes that return to their list, as they are after it."""
    name = "stopped"
    open_shop.has(name, name, addresses(10), {name: codes("STOPPED", 10)})
    sendout = open_shop.coupons(*sending(name, "--first", 4, "--wait", "--json")).json
    assert (sendout["state"], sendout["sent"]) == ("paused", 4)
    result = open_shop.on_terminal("cancel", sendout["id"], typed="n\n")
    assert result.code == FAILED
    assert "4 mails already handed to the relay" in result.err
    assert "6 mails will not be sent" in result.err
    assert "6 codes of list stopped return to the list" in result.err
    assert open_shop.state(sendout["id"]) == "paused"
    assert open_shop.on_terminal("cancel", sendout["id"], typed="y\n").code == 0
    open_shop.becomes("cancelled", sendout["id"])
    assert open_shop.get_list(name).available == 6


def test_the_first_recipients_are_mailed_before_the_others(open_shop: Shop) -> None:
    """Exactly these mails arrive, then the sendout pauses with a reason; the resume mails the others."""
    name = "canary"
    open_shop.has(name, name, addresses(30), {name: codes("CANARY", 30)})
    sendout = open_shop.coupons(*sending(name, "--first", 7, "--wait", "--json")).json
    assert (sendout["state"], sendout["sent"], sendout["is_first_mailed"]) == ("paused", 7, True)
    assert len(open_shop.mails(sendout["id"])) == 7
    assert open_shop.get_list(name).available == 0
    assert sendout["reason"] == (
        f"the first 7 recipients were mailed; look at the result, then resume with `coupons resume {sendout['id']}`"
    )
    assert sendout["reason"] in open_shop.coupons("show", sendout["id"]).out
    open_shop.resume(sendout["id"])
    assert sorted(mail.recipient for mail in open_shop.mails(sendout["id"])) == sorted(addresses(30))


def test_attributes_of_given_recipients_are_set(open_shop: Shop) -> None:
    """`--set` applies to each address of --to. A missing attribute is named with its remedy."""
    name = "set"
    open_shop.has(name, name, addresses(1), {name: codes("SET", 9)})
    to = ("send", "--message", name, "--to", "b@example.org", "--to", "c@example.org")
    error = open_shop.coupons(*to, code=FAILED).err
    assert "message set: recipient 1 has no first_name; add --set first_name=VALUE" in error
    sendout = open_shop.coupons(*to, "--set", "first_name=Grace=1", "--wait", "--json").json
    assert [mail.subject for mail in open_shop.mails(sendout["id"])] == ["For Grace=1"] * 2
    wrong = {
        ("--set", "first_name"): "must be NAME=VALUE",
        ("--set", "First Name=Ada"): "has no attribute name",
        ("--set", "first_name=A", "--set", "first_name=B"): "gives first_name a second time",
    }
    for options, reason in wrong.items():
        assert reason in open_shop.coupons(*to, *options, code=WRONG_USAGE).err
    assert "--set needs --to" in open_shop.coupons(*sending(name, "--set", "a=b"), code=WRONG_USAGE).err
