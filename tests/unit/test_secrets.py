"""Passwords, codes and addresses are neither printed, logged nor raised by accident."""

import ast
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from coupons.commands import ImportCoupons, InvalidCommand, decode
from coupons.foreign_errors import error_location
from coupons.mail import Envelope
from coupons.settings import Settings, SettingsError, load_settings
from coupons.smtp import SmtpAddress
from coupons.states import DeliveryState
from coupons.store.deliveries import Delivery, DeliveryResult
from coupons.templates.rendering import Coupon

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
def test_the_repr_of_a_value_hides_its_secret(thing: object) -> None:
    """The repr, which debuggers, assertions and tracebacks print, does not contain the secret of a value."""
    assert CODE not in repr(thing)
    assert PASSWORD not in repr(thing)


def calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_no_log_line_has_a_traceback() -> None:
    """The text of an error may hold codes (PostgreSQL's DETAIL), so only its class and its location are logged."""
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


def test_the_location_of_an_error_does_not_include_its_text() -> None:
    """The logged location of an error contains functions and lines, but not the text of the error."""
    try:
        raise ValueError(CODE)  # noqa: TRY301 - its location is the subject
    except ValueError as error:
        assert error_location(error).startswith("test_the_location_of_an_error")
        assert CODE not in error_location(error)


def test_settings_can_come_from_a_folder_of_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings can be read from one file each, as container engines mount them: the environment holds no password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COUPONS_WEB_TOKEN", raising=False)
    monkeypatch.setenv("COUPONS_SECRETS_DIR", str(tmp_path))
    (tmp_path / "coupons_web_token").write_text(f"{PASSWORD}\n")
    assert load_settings().web_token.get_secret_value() == PASSWORD


def test_the_value_of_an_invalid_setting_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error contains the name of the setting but not its value, which may be a misplaced password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUPONS_WEB_PORT", PASSWORD)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "COUPONS_WEB_PORT" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_the_error_of_an_invalid_command_shows_no_code() -> None:
    """Neither the error of an invalid command nor a chained error contains a code."""
    body = ImportCoupons(list="spring", codes=(CODE,), id=uuid4()).body().replace(b'"add"', f'"{CODE}"'.encode())
    with pytest.raises(InvalidCommand) as caught:
        decode(body)
    assert CODE not in str(caught.value)
    assert caught.value.__suppress_context__
