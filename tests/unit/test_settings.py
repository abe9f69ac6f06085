"""Settings, and the messages about invalid ones."""

from pathlib import Path

import pytest

from coupons.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("SMTP_CONNECTIONS", "0", "must be an integer from 1 to 200"),
        ("MAILS_PER_HOUR", "-1", "must be an integer of at least 0"),
        ("RETRY_HOURS", "a day", "must be a number greater than 0"),
        ("UNCERTAIN_POLICY", "guess", "must be one of ask, resend, accept"),
        ("ACTIVATED", "perhaps", "must be true or false"),
    ],
)
def test_an_invalid_setting_is_reported_with_the_values_that_are_valid(
    name: str, value: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message contains the environment variable and the valid values, but not the variable's value."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"COUPONS_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"COUPONS_{name}: {reason}"


def test_all_invalid_settings_are_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line reports all invalid settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUPONS_WEB_PORT", "http")
    monkeypatch.setenv("COUPONS_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        "COUPONS_LOG_FORMAT: must be one of console, json; COUPONS_WEB_PORT: must be an integer from 0 to 65535"
    )


def test_a_lease_outlasts_its_heartbeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat interval as long as the lease is rejected, because each lease would expire before it is renewed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUPONS_HEARTBEAT_SECONDS", "45")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == "COUPONS_HEARTBEAT_SECONDS must be less than COUPONS_LEASE_SECONDS"
