"""Long listings on the command line: every row is reachable, and the next command is printed."""

from tests.acceptance.system import Shop, codes


def test_a_listing_prints_the_command_that_shows_more(open_shop: Shop) -> None:
    """`outbox`, `show`, `who` and `list show` print it on stderr, and the commands lead to all rows."""
    audience = ["ada@example.org", *(f"refuse.{number}@example.org" for number in range(5))]
    open_shop.has("hello", "few", audience, {"ten": codes("TEN", 40)})
    sent = [open_shop.send("hello", "few", code=5)["id"] for _ in range(5)]
    for number in range(4):
        open_shop.import_codes("ten", [f"MORE-{number}"])
    options = {
        ("outbox",): ("id", sent[::-1]),
        ("outbox", "--state", "finished"): ("id", sent[::-1]),
        ("who", "--email", "ada@example.org"): ("sendout", sent[::-1]),
    }
    for command, (field, expected) in options.items():
        assert [each[field] for each in pages(open_shop, *command, "--limit", "2")] == expected
    problems = [each for page in pages(open_shop, "show", sent[0], "--limit", "2") for each in page]
    assert problems == ["sendout", "problems"] * 3
    imports = [each["id"] for each in pages(open_shop, "list", "show", "ten", "--limit", "2") if "mode" in each]
    assert len({*imports}) == len(imports) == 5
    assert "more:" not in open_shop.coupons("outbox").err
    assert "there is no sendout" in open_shop.coupons("outbox", "--before", "0000", code=1).err


def pages(shop: Shop, *command: str) -> list[dict[str, str]]:
    """Return the rows of a listing and of the listings that the printed commands show."""
    rows: list[dict[str, str]] = []
    following: tuple[str, ...] | None = command
    while following:
        result = shop.coupons(*following, "--json")
        rows += result.json if isinstance(result.json, list) else [result.json]
        more = result.err.removeprefix("more: coupons ").strip()
        following = tuple(part.strip("'") for part in more.split(" ")) if more else None
    return rows
