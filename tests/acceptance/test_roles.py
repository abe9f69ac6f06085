"""Each process works with a login of its own role. A login sees codes only with the grant for codes."""

import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from sandbox.services import Services, Sink
from tests.acceptance.mails import assert_own_codes
from tests.acceptance.processes import COUPONS, FAILED, INTERRUPTED, NOT_ALL_MAILED, REJECTED_LINES, SETTINGS
from tests.acceptance.system import Shop, addresses, codes
from tests.db_roles import logins_to
from tests.leaks import leaks
from tests.waiting import eventually

CUSTOMERS = addresses(200)
SPRING = codes("SPRING", 260)
REFUSED = "permission denied for codes: reading codes requires the role coupons_codes, deleting codes the owner"
WORKERS = {"import": "importer", "sendout": "preparer", "deliver": "sender"}
LOGINS = (*WORKERS.values(), "web", "web and codes", "operator", "operator and codes", "auditor")


@pytest.fixture
async def urls(services: Services) -> AsyncIterator[dict[str, str]]:
    """Provide the database URL of a login for each of these roles."""
    async with logins_to(services.database_url) as logins:
        yield {each: await logins.of(*(f"coupons_{role}" for role in each.split(" and "))) for each in LOGINS}


@pytest.fixture
def desk(shop: Shop, services: Services, sink: Sink, urls: dict[str, str], tmp_path: Path) -> Shop:
    """Return the same shop with the login of an operator."""
    return Shop(replace(services, database_url=urls["operator"]), sink, tmp_path)


@pytest.fixture
def working(shop: Shop, urls: dict[str, str]) -> Iterator[None]:
    """Run a worker for each role with its own login; the workers sweep all the time."""
    with ExitStack() as stack:
        for role, login in WORKERS.items():
            stack.enter_context(
                shop.worker(role, database_url=urls[login], sweep_seconds=0.5, uncertain_policy="accept")
            )
        yield


@contextmanager
def console(desk: Shop, folder: Path, url: str) -> Iterator[httpx.Client]:
    """Run `coupons web` with this database URL, and yield an HTTP client for it."""
    log = folder / "web.log"
    settings = {"COUPONS_DATABASE_URL": url, "COUPONS_WEB_PORT": "0"}
    with log.open("wb") as output, subprocess.Popen(
        [COUPONS, "web"],
        env=os.environ | SETTINGS | desk.services.environment() | settings,
        cwd=folder,
        stdout=output,
        stderr=output,
    ) as process:  # fmt: skip
        try:
            eventually(lambda: "http://" in log.read_text() or process.poll() is not None, "a console")
            found = re.search(r"http://\S+", log.read_text())
            assert found, log.read_text()
            with httpx.Client(base_url=found[0]) as browser:
                yield browser
        finally:
            process.terminate()
    assert "internal error" not in log.read_text()
    assert leaks(log.read_text()) == []


def page(browser: httpx.Client, path: str, status: int = 200) -> str:
    answer = browser.get(path)
    assert answer.status_code == status, (path, answer.text)
    assert "Traceback" not in answer.text
    return answer.text


def test_each_role_has_the_rights_for_the_main_workflow(
    shop: Shop, desk: Shop, working: None, urls: dict[str, str]
) -> None:
    """Three workers with three logins import codes and resume an interrupted sendout. Each mail has its own code."""
    desk.prepare("spring-voucher", "customers", CUSTOMERS, {"spring-10": SPRING[:150]})
    sendout = ("send", "--message", "spring-voucher", "--group", "customers", "--wait", "--json")
    interrupted = desk.coupons(*sendout, "--auto-resume", code=INTERRUPTED).json
    assert interrupted["lists"][0]["missing"] == 50
    desk.import_codes("spring-10", SPRING[150:])
    shop.becomes("finished", interrupted["id"])
    assert_own_codes(shop.mails(), CUSTOMERS, SPRING)
    stopped = desk.begin_sending("spring-voucher", "customers")
    shop.becomes("interrupted", stopped)
    desk.coupons("cancel", stopped)
    assert desk.coupons("outbox", "--json").json[0]["state"] == "cancelled"
    assert "✗" not in desk.coupons("verify", database_url=urls["auditor"]).out
    assert shop.dead() == []


def test_a_login_that_may_not_see_codes_gets_one_line(
    desk: Shop, shop: Shop, urls: dict[str, str], working: None
) -> None:
    """`who` and the rejected lines exit with code 1 for a login without the grant for codes, otherwise they succeed."""
    desk.prepare("spring-voucher", "customers", CUSTOMERS[:3], {"spring-10": SPRING[:4]})
    desk.send("spring-voucher", "customers")
    import_id = desk.coupons("import", desk.file("again.txt", "\n".join(SPRING[:5])), "--list", "spring-10").out.strip()
    shop.becomes("finished", import_id)
    dry_run = ("import", desk.file("more.txt", "\n".join(SPRING[:6])), "--list", "spring-10", "--dry-run")
    asked = {
        ("who", "--code", SPRING[0]): "customer",
        ("who", "--email", CUSTOMERS[0]): "SPRING-",
        ("show", import_id, "--rejected"): "SPRING-",
    }
    for question, answer in asked.items():
        assert refusal(desk, *question) == f"coupons: {REFUSED}\n"
        assert answer in desk.coupons(*question, database_url=urls["operator and codes"]).out
    assert REFUSED in refusal(desk, *dry_run)
    desk.coupons(*dry_run, database_url=urls["operator and codes"], code=REJECTED_LINES)
    assert REFUSED in refusal(desk, "verify")
    assert "5 lines, 1 added, 4 rejected" in desk.coupons("show", import_id).out


def test_an_operator_retries_and_corrects_mails(
    desk: Shop, shop: Shop, working: None, urls: dict[str, str], tmp_path: Path
) -> None:
    """The roles of the command line and the console may retry mails, but change no address of a sent mail."""
    audience = [*CUSTOMERS[:2], "refuse.a@example.org", "refuse.b@example.org"]
    desk.prepare("spring-voucher", "customers", audience, {"spring-10": SPRING[:4]})
    sendout = desk.send("spring-voucher", "customers", code=NOT_ALL_MAILED)["id"]
    desk.coupons("retry", sendout, "--address", "refuse.a@example.org=ada@example.org")
    with console(desk, tmp_path, urls["web"]) as browser:
        correction = {"old": "refuse.b@example.org", "new": "bea@example.org"}
        answer = browser.post(f"/api/sendouts/{sendout}/retry", json={"addresses": [correction]})
        assert answer.json()["corrected"] == 1, answer.text
    shop.becomes_all("sent", sendout)
    assert_own_codes(shop.mails(), [*CUSTOMERS[:2], "ada@example.org", "bea@example.org"], SPRING[:4])
    change = ("retry", sendout, "--address", "ada@example.org=mallory@example.org")
    assert "is sent: only refused and deferred ones" in refusal(desk, *change)


def refusal(desk: Shop, *question: object) -> str:
    refused = desk.coupons(*question, code=FAILED)
    assert refused.err.count("\n") == 1
    assert "SPRING-" not in refused.out + refused.err
    return refused.err


def test_only_the_owner_deletes_a_list(desk: Shop, shop: Shop) -> None:
    """A login with the operator's role gets an error of one line with the reason."""
    desk.coupons("list", "create", "spring-10")
    desk.coupons("list", "archive", "spring-10")
    assert refusal(desk, "list", "delete", "spring-10", "--yes") == f"coupons: {REFUSED}\n"
    shop.coupons("list", "delete", "spring-10", "--yes")


def test_the_console_shows_everything_except_codes(
    desk: Shop, shop: Shop, urls: dict[str, str], working: None, tmp_path: Path
) -> None:
    """A login of the web role gets each page with a notice in place of codes. With the grant it gets the codes."""
    desk.prepare("spring-voucher", "customers", CUSTOMERS[:3], {"spring-10": SPRING[:4]})
    sendout = desk.send("spring-voucher", "customers")["id"]
    with console(desk, tmp_path, urls["web"]) as browser:
        import_id = uploaded(browser, SPRING[:5])
        shop.becomes("finished", import_id)
        for path in PAGES:
            assert "SPRING-" not in page(browser, path.format(sendout=sendout, id=import_id))
        page(browser, f"/nothing?code={SPRING[0]}", 404)  # the query string is not logged either
        assert REFUSED in page(browser, f"/imports/{import_id}")
        assert REFUSED in page(browser, f"/imports/{import_id}/rejections.csv", 403)
        assert REFUSED in page(browser, f"/api/imports/{import_id}/rejections.csv", 403)
    with console(desk, tmp_path, urls["web and codes"]) as browser:
        assert SPRING[0] in page(browser, f"/imports/{import_id}")
        assert page(browser, f"/api/imports/{import_id}/rejections.csv").count("SPRING-") == 4


PAGES = (
    "/", "/?state=finished", "/sendouts/{sendout}", "/lists", "/lists/spring-10", "/groups", "/groups/customers",
    "/imports/{id}", "/readyz", "/api/lists", "/api/lists/spring-10/imports", "/api/groups",
    "/api/groups/customers/imports", "/api/sendouts", "/api/sendouts/{sendout}", "/api/sendouts/{sendout}/uncertain",
    "/api/imports/{id}", "/api/imports/{id}/events",
)  # fmt: skip


def uploaded(browser: httpx.Client, lines: list[str]) -> str:
    """Upload these lines with the console's form, and return the id of the import."""
    form = {"data": {"mode": "add"}, "files": {"file": ("codes.txt", "\n".join(lines).encode())}}
    answer = browser.post("/lists/spring-10/imports", headers={"Sec-Fetch-Site": "same-origin"}, **form)  # type: ignore[arg-type]
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].removeprefix("/imports/").partition("?")[0]
