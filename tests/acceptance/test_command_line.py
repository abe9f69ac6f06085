"""The command line in scripts and on terminals."""

import json
import os
import re
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import COUPONS, FAILED, NOT_ALL_MAILED, REJECTED_LINES, SETTINGS, WRONG_USAGE
from tests.acceptance.system import Shop, addresses, codes

ESCAPE = "\x1b"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*[349]\d[;m]")
NOBODY = "99999999-9999-4999-8999-999999999999"
HELP_SECONDS = 0.25


@pytest.fixture(scope="module")
def sendout(open_shop: Shop) -> Any:
    """A finished sendout with a refused recipient."""
    audience = [*addresses(20), "refuse.me@example.org"]
    open_shop.has("voucher", "customers", audience, {"ten-percent": codes("TEN", 30)})
    return open_shop.send("voucher", "customers", code=NOT_ALL_MAILED)


def test_each_command_with_json_prints_json(open_shop: Shop, sendout: Any, tmp_path: Path) -> None:
    """The JSON has the values that the tables show."""
    people = tmp_path / "people.csv"
    people.write_text("email\nnot an address\n")
    more = tmp_path / "more.txt"
    more.write_text("https://example.org\n")
    doctor = open_shop.begin("doctor", "--json")
    lists = open_shop.coupons("list", "ls", "--json").json
    assert [(each["name"], each["sent"], each["available"]) for each in lists] == [("ten-percent", 20, 10)]
    shown_list, import_ = open_shop.coupons("list", "show", "ten-percent", "--json").json
    assert (shown_list, import_["added"]) == (lists[0], 30)
    assert open_shop.coupons("show", import_["id"], "--json").json == import_
    (group,) = open_shop.coupons("group", "ls", "--json").json
    assert (group["name"], group["recipients"], group["attributes"]) == ("customers", 21, ["first_name"])
    (message,) = open_shop.coupons("message", "ls", "--json").json
    assert (message["name"], message["lists"]) == ("voucher", ["ten-percent"])
    (in_outbox,) = open_shop.coupons("outbox", "--json").json
    assert in_outbox == sendout
    shown = open_shop.coupons("show", sendout["id"], "--json").json
    assert shown["sendout"] == sendout
    assert [(each["address"], each["state"]) for each in shown["problems"]] == [("refuse.me@example.org", "refused")]
    (mail,) = open_shop.coupons("who", "--email", "Customer1@example.org", "--json").json
    (owner,) = open_shop.coupons("who", "--code", mail["codes"]["ten-percent"], "--json").json
    assert owner["address"] == "customer1@example.org"
    assert all(each["violations"] == [] for each in open_shop.coupons("verify", "--json").json)
    into = ("--group", "customers", "--wait", "--json", "--rejected", tmp_path / "rejected.csv")
    imported = open_shop.coupons("group", "import", people, *into, code=REJECTED_LINES).json
    assert (imported["group"], imported["added"], imported["rejected"]) == ("customers", 0, 1)
    assert [line.partition(";")[0] for line in (tmp_path / "rejected.csv").read_text().splitlines()[1:]] == ["2"]
    assert open_shop.coupons("import", more, "--list", "ten-percent", "--dry-run", "--json", code=3).json["url"] == 1
    assert all(check["ok"] for check in json.loads(doctor().out))


def test_a_command_without_wait_prints_json_too(open_shop: Shop, sendout: Any, tmp_path: Path) -> None:
    """`coupons import` and `coupons send` print the id alone, and with `--json` as JSON."""
    more = tmp_path / "more.txt"
    more.write_text("TEN-00031\n")
    into = ("import", more, "--list", "ten-percent")
    bare = open_shop.coupons(*into).out.strip()
    open_shop.becomes("finished", bare)
    as_json = open_shop.coupons(*into, "--json").json["id"]
    open_shop.becomes("finished", as_json)
    again = open_shop.coupons("send", "--message", "voucher", "--group", "customers", "--json").json["id"]
    open_shop.becomes("interrupted", again)
    assert open_shop.coupons("resume", again, "--json").json["sendout"] == again


def test_a_command_with_a_known_id_is_not_executed_again(open_shop: Shop) -> None:
    """`--id` makes an import or a sendout safe to repeat, for example after a lost connection."""
    import_id, sendout_id = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-8999-aaaaaaaaaaaa"
    open_shop.has("again", "again", addresses(5), {"again": []})
    for _ in range(2):
        imported = open_shop.import_codes("again", codes("AGAIN", 10), "--id", import_id, "--json").json
        assert (imported["id"], imported["added"], imported["rejected"]) == (import_id, 10, 0)
    for _ in range(2):
        arguments = ("--message", "again", "--group", "again", "--id", sendout_id, "--wait", "--json")
        assert open_shop.coupons("send", *arguments).json["sent"] == 5
    assert_own_codes(open_shop.mails(sendout_id), addresses(5), codes("AGAIN", 10))
    assert open_shop.dead() == []


def test_who_finds_codes_by_address_and_addresses_by_code(open_shop: Shop, sendout: Any) -> None:
    """`who` has exit status 1 if it finds nothing, and 2 if neither an address nor a coupon code is given."""
    by_address = open_shop.coupons("who", "--email", "CUSTOMER1@example.org").out
    assert "ten-percent: TEN-000" in by_address
    assert "sent" in by_address
    code = by_address.partition("ten-percent: ")[2][:9]
    assert "customer1@example.org" in open_shop.coupons("who", "--code", code).out
    assert "no list has the code TEN-99999" in open_shop.coupons("who", "--code", "TEN-99999", code=FAILED).err
    open_shop.coupons("who", "--email", "nobody@example.org", code=FAILED)
    open_shop.coupons("who", code=WRONG_USAGE)


def test_without_a_terminal_no_progress_bar_is_shown(open_shop: Shop, tmp_path: Path) -> None:
    """A script that waits for a job gets its result on stdout and nothing on stderr."""
    open_shop.has("quiet", "quiet", addresses(5), {"quiet": []})
    result = open_shop.import_codes("quiet", codes("QUIET", 5))
    assert (result.err, ESCAPE in result.out) == ("", False)
    result = open_shop.coupons("send", "--message", "quiet", "--group", "quiet", "--wait")
    assert (result.err, ESCAPE in result.out) == ("", False)
    assert "5 recipients: 5 sent, 0 remaining" in result.out


def test_on_a_terminal_progress_goes_to_stderr_and_the_result_to_stdout(open_shop: Shop) -> None:
    """The progress bar on the terminal counts mails; stdout, which is a file, has only the JSON."""
    open_shop.has("bar", "bar", addresses(1_500), {"bar": codes("BAR", 1_500)})
    arguments = ("send", "--message", "bar", "--group", "bar", "--wait", "--json")
    result = open_shop.on_terminal(*arguments, only_stderr=True)
    assert result.code == 0
    assert "1,500 of 1,500 mails" in result.err
    assert "sending" in result.err
    assert ESCAPE in result.err
    assert result.json["sent"] == 1_500


@pytest.mark.parametrize(
    "arguments", [("outbox",), ("--help",), ("show", NOBODY), ("list", "ls", "--json")], ids=" ".join
)
@pytest.mark.parametrize("closed", ["stdout", "both"])
def test_a_closed_pipe_ends_a_command_without_a_message(
    open_shop: Shop, sendout: Any, arguments: tuple[str, ...], closed: str
) -> None:
    """A command ends by SIGPIPE if its reader ends first, as in `coupons outbox | head`; a shell shows 141.

    A command that writes nothing to a closed pipe ends normally.
    """
    environment = os.environ | SETTINGS | open_shop.services.environment()
    outputs: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE if closed == "stdout" else subprocess.STDOUT,
    }
    with subprocess.Popen([COUPONS, *arguments], env=environment, **outputs) as process:
        assert process.stdout
        process.stdout.close()
        printed = process.stderr.read() if process.stderr else b""
        if arguments[0] == "show" and closed == "stdout":
            assert (printed.count(b"\n"), process.wait()) == (1, FAILED)
        else:
            assert (printed, process.wait()) == (b"", -signal.SIGPIPE)


@pytest.mark.parametrize("arguments", [("outbox",), ("--help",)], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error(open_shop: Shop, sendout: Any, arguments: tuple[str, ...]) -> None:
    """If the disk is full, the one line on stderr gives this reason, and the exit code is 1."""
    environment = os.environ | SETTINGS | open_shop.services.environment()
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COUPONS, *arguments], check=False, env=environment, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (
        FAILED, "coupons: the output cannot be written: no space left on device\n",
    )  # fmt: skip


def test_an_option_with_one_value_cannot_be_given_twice(open_shop: Shop) -> None:
    """`send --group a --group b` would mail only one of the groups. Repeatable options and flags may be repeated."""
    for arguments in (
        ("send", "--message", "m", "--group", "a", "--group", "b"),
        ("import", "/dev/null", "--list", "a", "--list", "b"),
        ("who", "--email", "ada@example.org", "--email", "bob@example.org"),
        ("message", "save", "m", "--subject", "a", "--subject", "b"),
        ("list", "create", "x", "--description=a", "--description", "b"),
    ):
        error = open_shop.coupons(*arguments, code=WRONG_USAGE).err
        assert error.endswith("is given twice, but accepts one value\n"), arguments
    open_shop.coupons("outbox", "--json", "--json")
    assert "is given twice" not in open_shop.coupons("send", "--to", "a@b.c", "--to", "a@b.d", code=WRONG_USAGE).err


def test_an_argument_must_be_utf_8(open_shop: Shop) -> None:
    """Bytes of another encoding are reported in one line. Nothing is changed."""
    environment = os.environ | SETTINGS | open_shop.services.environment()
    for arguments in (("who", "--code", b"\xff"), ("list", "create", "x", "--description", b"\xe4")):
        done = subprocess.run([COUPONS, *arguments], check=False, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (FAILED, "coupons: an argument is not valid UTF-8\n")


def test_no_color_is_respected(open_shop: Shop, sendout: Any) -> None:
    """Bars and tables on a terminal have colours, unless NO_COLOR is set (no-color.org)."""
    assert COLOUR.search(open_shop.on_terminal("outbox").err)
    table = open_shop.on_terminal("outbox", NO_COLOR="1")
    assert "finished" in table.err
    assert not COLOUR.search(table.err)
    codes = open_shop.file("one.txt", "TEN-00099\n")
    bar = open_shop.on_terminal("import", codes, "--list", "ten-percent", "--wait", NO_COLOR="1")
    assert "1 added" in bar.err
    assert not COLOUR.search(bar.err)


def test_help_is_fast() -> None:
    """`coupons --help` takes less than 0.25 s of processor time, best of five. The machine may be busy."""
    seconds = []
    for _ in range(5):
        begun = processor_seconds()
        done = subprocess.run([COUPONS, "--help"], check=True, capture_output=True, text=True)
        seconds.append(processor_seconds() - begun)
        assert "coupons migrate" in done.stdout
    assert min(seconds) < HELP_SECONDS


def processor_seconds() -> float:
    """Return the processor time of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_shell_can_complete_commands(tmp_path: Path) -> None:
    """After `eval "$(coupons completion bash)"`, bash completes commands by running `coupons`."""
    path = {**os.environ, "PATH": f"{COUPONS.parent}:{os.environ['PATH']}"}
    registered = 'eval "$(coupons completion bash)" && complete -p coupons'
    done = subprocess.run(["bash", "-c", registered], check=True, capture_output=True, text=True, env=path)
    assert done.stdout.startswith("complete ")
    asked = path | {"_COUPONS_COMPLETE": "bash_complete", "COMP_WORDS": "coupons out", "COMP_CWORD": "1"}
    done = subprocess.run([COUPONS], check=False, capture_output=True, text=True, env=asked)
    assert done.stdout == "plain,outbox\n"


def test_wrong_usage_has_its_own_exit_code(open_shop: Shop) -> None:
    """The exit code of wrong options and arguments is 2."""
    for arguments in (("send",), ("resume", "not-an-id"), ("outbox", "--state", "lost"), ("import", "no-such-file")):
        open_shop.coupons(*arguments, code=WRONG_USAGE)


def test_coupon_commands_fail_where_the_coupon_manager_is_not_activated(open_shop: Shop, sendout: Any) -> None:
    """With COUPONS_ACTIVATED=false the exit code is 1, the reason is one line, and nothing changes."""
    text = open_shop.file("coupon.txt", 'Yours: {{ coupon("ten-percent") }}\n')
    codes_file = open_shop.file("more.txt", "X-1\n")
    before = open_shop.contents()
    commands: list[tuple[object, ...]] = [
        ("list", "create", "x"), ("list", "change", "ten-percent", "--description", "x"),
        ("list", "copy", "ten-percent", "x"), ("list", "archive", "ten-percent"), ("list", "restore", "ten-percent"),
        ("list", "delete", "ten-percent", "--yes"), ("import", codes_file, "--list", "ten-percent"),
        ("import", codes_file, "--list", "ten-percent", "--dry-run"), ("message", "delete", "voucher", "--yes"),
        ("message", "save", "x", "--subject", "x", "--text", text),
        ("message", "test", "voucher", "--to", "a@example.org"),
        ("send", "--message", "voucher", "--group", "customers"),
    ]  # fmt: skip
    ending = [open_shop.begin(*arguments, activated="false") for arguments in commands]
    for arguments, result in zip(commands, [end() for end in ending], strict=True):
        assert (result.code, result.out) == (FAILED, ""), arguments
        assert "the Coupon Manager is not activated on this system (COUPONS_ACTIVATED)" in result.err, arguments
        assert result.err.count("\n") == 1, arguments
    assert open_shop.contents() == before


def test_all_else_continues_where_the_coupon_manager_is_not_activated(open_shop: Shop, sendout: Any) -> None:
    """Groups, messages without coupons and their sendouts continue, and what was accepted before can be seen."""
    text = open_shop.file("plain.txt", "Hello {{ first_name }}\n")
    open_shop.coupons(*open_shop.importing_group("plain", addresses(2)), activated="false")
    open_shop.coupons("message", "save", "plain", "--subject", "Hello", "--text", text, activated="false")
    open_shop.coupons("message", "test", "plain", "--to", "editor@example.org", activated="false")
    sent = open_shop.coupons(
        "send", "--message", "plain", "--group", "plain", "--wait", "--json", activated="false"
    ).json
    assert (sent["state"], sent["sent"]) == ("finished", 2)
    for command in (("list", "ls"), ("outbox",), ("show", sendout["id"]), ("who", "--email", "customer1@example.org")):
        open_shop.coupons(*command, activated="false")
    assert "activation" in open_shop.coupons("doctor", activated="false").out
