"""A file whose codes look like those of another list is imported only after a confirmation."""

import random
import string
from collections.abc import Iterator

import pytest

from coupons.commands import ImportCoupons
from tests.acceptance.processes import DONE, FAILED
from tests.acceptance.system import Shop


def gifts(seed: int, count: int = 60) -> list[str]:
    rng = random.Random(f"gift {seed}")
    return ["GIFT-" + "".join(rng.choices(string.ascii_uppercase + string.digits, k=8)) for _ in range(count)]


@pytest.fixture(scope="module")
def shop(open_shop: Shop) -> Iterator[Shop]:
    rng = random.Random("spring")
    for name, codes in (("gift-50", gifts(1)), ("spring-10", [f"{rng.randrange(10**11, 10**12)}" for _ in range(60)])):
        open_shop.coupons("list", "create", name)
        open_shop.import_codes(name, codes)
    yield open_shop
    open_shop.verify()


def test_without_a_terminal_the_file_is_refused_before_it_is_uploaded(shop: Shop) -> None:
    """One line names both lists and the option; nothing is changed."""
    before = shop.contents()
    result = shop.import_codes("spring-10", gifts(2), code=FAILED)
    assert (
        "these codes look like gift-50, not spring-10 (spring-10 has 60 codes): nothing was changed; confirm with --yes"
        in result.err
    )
    assert result.err.count("\n") == 1
    assert not result.out
    assert shop.contents() == before


def test_a_dry_run_shows_the_suspicion(shop: Shop) -> None:
    """It says whether the import would be confirmed, as the report of the import does."""
    file = shop.file("gifts.txt", "\n".join(gifts(3)))
    suspicion = "these codes look like gift-50, not spring-10 (spring-10 has 60 codes); "
    for options, end in (((), "confirm with --yes (confirmed)"), (("--yes",), "confirmed")):
        dry = shop.coupons("import", file, "--list", "spring-10", *options, "--dry-run", "--json").json
        assert suspicion + end in dry["notices"]


@pytest.mark.parametrize(("typed", "code"), [("n\n", FAILED), ("y\n", DONE)], ids=["no", "yes"])
def test_an_operator_at_a_terminal_is_asked(shop: Shop, typed: str, code: int) -> None:
    """The import starts only after the answer yes."""
    name = f"asked-{code}"
    shop.coupons("list", "create", name)
    shop.import_codes(name, [f"{(code + 1) * 10**12 + number * 7919}" for number in range(60)])
    file = shop.file("asked.txt", "\n".join(gifts(code + 4)))
    result = shop.on_terminal("import", file, "--list", name, "--wait", typed=typed)
    assert f"these codes look like gift-50, not {name} ({name} has 60 codes)" in result.err
    assert f"Import them into list {name} all the same? [y/N]" in result.err
    assert result.code == code
    assert ("60 added" in result.err) == (code == DONE)


def test_the_worker_refuses_a_command_that_is_not_confirmed(shop: Shop) -> None:
    """Other producers are not asked: their import fails with the same line, and `confirmed` permits it."""
    command = ImportCoupons(list="spring-10", codes=tuple(gifts(7)))
    shop.publish(command)
    failed = shop.coupons("show", command.id, "--wait", code=FAILED)
    assert "not spring-10 (spring-10 has 60 codes)" in failed.out + failed.err
    confirmed = ImportCoupons(list="spring-10", codes=tuple(gifts(7)), confirmed=True)
    shop.publish(confirmed)
    assert shop.coupons("show", confirmed.id, "--wait", "--json").json
