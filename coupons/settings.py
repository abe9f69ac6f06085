"""Every setting, with its one default. Read once, in `main`, and passed on by name.

From the environment, a `.env` file in the working folder, or files in the folder that `COUPONS_SECRETS_DIR` names
(one file a setting, as container engines mount secrets).
"""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coupons.batching import paced_batch
from coupons.errors import Conflict, UserError

PREFIX = "COUPONS_"


class SettingsError(UserError):
    """A setting is missing or wrong."""


class Settings(BaseSettings):
    """The field's name in capitals after `COUPONS_` is the variable's name."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    activated: bool = Field(
        True, description="Whether this system has the Coupon Manager; if not, every command is refused"
    )

    database_url: SecretStr = Field(SecretStr("postgresql://coupons@127.0.0.1/coupons"), description="PostgreSQL")
    broker_url: SecretStr = Field(SecretStr("amqp://guest:guest@127.0.0.1/"), description="RabbitMQ")
    smtp_url: SecretStr = Field(
        SecretStr("smtp://127.0.0.1:25"),
        description="Relays, separated by blanks: `smtp://user:password@host:587` (STARTTLS required unless loopback "
        "or `?tls=none`), `smtps://…`; `?weight=2` for twice the connections",
    )

    default_from: str = Field(
        "", description="`From` of messages that name no sender of their own: `Shop <shop@example.org>`"
    )
    bounce_address: str = Field(
        "",
        description="Envelope sender, where bounces go; `{id}` in it (`bounces+{id}@example.org`) says whose it was. "
        "Empty: the sender's address",
    )
    unsubscribe_url: str = Field(
        "", description="`List-Unsubscribe` (one click, RFC 8058); `{address}` and `{message_id}` are filled in"
    )
    smtp_connections: int = Field(
        10,
        ge=1,
        le=200,
        description="Most connections to all relays, per worker process; twice as many while some are silent for 30 s",
    )
    smtp_mails_per_connection: int = Field(1_000, ge=0, description="Then a connection is opened anew; 0: never")
    smtp_idle_seconds: float = Field(30, gt=0, description="A connection without mail is closed after")
    smtp_final_reply_timeout_seconds: float = Field(
        600, gt=0, description="A mail that was handed over, and not answered for within, is uncertain"
    )
    smtp_backoff_seconds: float = Field(1, gt=0, description="A relay that fails is tried again after, then doubling")
    smtp_max_backoff_seconds: float = Field(60, gt=0, description="… up to")
    smtp_ehlo_hostname: str = Field("", description="Name said in EHLO; empty: this machine's")
    mails_per_hour: int = Field(0, ge=0, description="Limit of all workers together, the same for each; 0: none")
    uncertain_policy: Literal["ask", "resend", "accept"] = Field(
        "ask",
        description="What becomes of mails that may have been sent: a person decides, sent again, or counted as sent",
    )
    retry_hours: float = Field(24, gt=0, description="A deferred delivery is given up, its code returned, after")

    import_folder: Path | None = Field(None, description="The only folder that `file:` sources may name; unset: none")
    import_hosts: str = Field(
        "",
        description="The only hosts that `https:` sources may name, separated by blanks or commas: `shop.example`, "
        "`files.example:8443`",
    )
    import_private_hosts: bool = Field(
        False, description="Whether these hosts may have addresses that are not public: loopback, a local network"
    )
    import_buckets: str = Field(
        "",
        description="The only buckets that `s3:` sources may name, separated by blanks or commas; credentials and "
        "endpoint are in the usual variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, "
        "`AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`",
    )
    import_max_bytes: int = Field(
        2_000_000_000, gt=0, description="A source that is larger, or unpacks (gzip, zip) to more, is refused"
    )
    import_max_ratio: int = Field(
        200, gt=0, description="A source that unpacks to more than so many times its size is refused"
    )
    import_max_lines: int = Field(100_000_000, gt=0, description="A source with more lines is refused")

    rejected_lines_retention_days: int = Field(
        90, ge=1, description="For so long the lines that an import did not take are kept; they hold codes or addresses"
    )

    batch_size: int = Field(1_000, ge=1, le=5_000, description="Deliveries that a worker claims at once")
    concurrent_batches: int = Field(2, ge=1, le=16, description="Batches that a worker delivers at the same time")
    max_in_flight: int = Field(200, ge=1, le=5_000, description="Most mails that a killed worker leaves uncertain")
    lease_seconds: float = Field(
        45, gt=0, description="A worker that is silent for so long has lost its work to others"
    )
    heartbeat_seconds: float = Field(10, gt=0, description="Leases are renewed every")
    sweep_seconds: float = Field(15, gt=0, description="Work that no command announced is looked for every")

    log_format: Literal["console", "json"] = Field("console", description="How logs look on stderr")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is logged"
    )

    health_host: str = Field("127.0.0.1", description="Where `coupons worker` answers `/livez` and `/readyz`")
    health_port: int = Field(
        0, ge=0, le=65_535, description="Its port, which `coupons ready` asks too; 0: it answers nowhere"
    )

    web_host: str = Field("127.0.0.1", description="Where `coupons web` listens")
    web_port: int = Field(8080, ge=0, le=65_535, description="Its port")
    web_token: SecretStr = Field(
        SecretStr(""), description="Bearer token of the HTTP API, password of the console; required off loopback"
    )

    @model_validator(mode="after")
    def _beats_before_it_expires(self) -> Self:
        if self.heartbeat_seconds >= self.lease_seconds:
            raise ValueError("COUPONS_HEARTBEAT_SECONDS must be less than COUPONS_LEASE_SECONDS")
        return self

    @property
    def effective_batch_size(self) -> int:
        """Deliveries of a batch: fewer where the limit of all workers would have a worker hold it for long."""
        return paced_batch(self.batch_size, self.mails_per_hour or None)

    def require_activated(self) -> None:
        """Raises Conflict on a system that has no Coupon Manager."""
        if not self.activated:
            raise Conflict("the Coupon Manager is not activated on this system (COUPONS_ACTIVATED)")


def load() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: one line that names each variable that is wrong, never its value.
    """
    secrets = os.environ.get(f"{PREFIX}SECRETS_DIR")
    try:
        return Settings(_secrets_dir=secrets) if secrets else Settings()
    except ValidationError as error:
        wrong = (_told(e["loc"], e["msg"]) for e in error.errors(include_input=False))
        raise SettingsError("; ".join(wrong)) from None


def _told(place: tuple[int | str, ...], text: str) -> str:
    return f"{PREFIX}{str(place[0]).upper()}: {text}" if place else text
