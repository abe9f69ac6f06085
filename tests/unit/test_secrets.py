"""Passwords, codes and addresses stand in nothing that is printed, logged or raised by the way."""

import ast
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from coupons.commands import ImportCoupons, InvalidCommand, decode
from coupons.mail import Envelope
from coupons.settings import Settings, SettingsError, load_settings
from coupons.smtp import SmtpAddress
from coupons.states import DeliveryState
from coupons.store.deliveries import Delivery, DeliveryResult
from coupons.templates.rendering import Coupon
from workers.loops import place

ROOT = Path(__file__).parents[2]
CODE, PASSWORD = "SPRING-7K2", "hunter2hunter2"
DELIVERY = Delivery(1, "ada@example.org", {}, 0, codes={1: CODE})


@pytest.mark.parametrize(
    "thing",
    [
        DELIVERY,
        DeliveryResult.of(DELIVERY, DeliveryState.SENT, "250 ok"),
        Coupon(CODE, is_code=True),
        Envelope.plain("shop@example.org", "ada@example.org", f"{CODE}\r\n".encode()),
        SmtpAddress.parse(f"smtps://shop:{PASSWORD}@relay.example"),
        Settings(_env_file=None, database_url=f"postgresql://a:{PASSWORD}@h/d", web_token=PASSWORD),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_a_traceback_may_show_hides_its_secret(thing: object) -> None:
    """`repr` is what debuggers, assertions and tracebacks with values print."""
    assert CODE not in repr(thing)
    assert PASSWORD not in repr(thing)


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_no_log_line_has_a_traceback() -> None:
    """An error's text may hold codes (Postgres says them in DETAIL): its class and its place are logged, never more."""
    sources = [
        file for folder in ("coupons", "producers", "sandbox", "workers") for file in (ROOT / folder).rglob("*.py")
    ]
    found = [
        f"{file.relative_to(ROOT)}:{call.lineno}"
        for file in sources
        for call in calls(ast.parse(file.read_text(encoding="utf-8")))
        if ast.unparse(call.func) in ("log.exception", "traceback.print_exc", "traceback.format_exc")
        or any(keyword.arg == "exc_info" for keyword in call.keywords)
    ]
    assert len(sources) > 100
    assert found == []


def test_the_place_of_an_error_is_told_without_its_text() -> None:
    """File functions and lines, as the log shows them."""
    try:
        raise ValueError(CODE)  # noqa: TRY301 - to be looked at
    except ValueError as error:
        assert place(error).startswith("test_the_place_of_an_error")
        assert CODE not in place(error)


def test_settings_come_from_a_folder_of_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file a setting, as container engines mount them, so that no password stands in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COUPONS_WEB_TOKEN", raising=False)
    monkeypatch.setenv("COUPONS_SECRETS_DIR", str(tmp_path))
    (tmp_path / "coupons_web_token").write_text(f"{PASSWORD}\n")
    assert load_settings().web_token.get_secret_value() == PASSWORD


def test_wrong_settings_are_named_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was meant to be a number may be a password in the wrong place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUPONS_WEB_PORT", PASSWORD)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "COUPONS_WEB_PORT" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_refused_command_shows_no_code() -> None:
    """Neither in its reasons nor in what an error that is chained to it says."""
    body = ImportCoupons(list="spring", codes=(CODE,), id=uuid4()).body().replace(b'"add"', f'"{CODE}"'.encode())
    with pytest.raises(InvalidCommand) as caught:
        decode(body)
    assert CODE not in str(caught.value)
    assert caught.value.__suppress_context__
