"""All settings and their defaults. `main` reads them once and passes them on by name.

Settings come from the environment, from a `.env` file in the working folder, or from the folder in
`COUPONS_SECRETS_DIR` (one file per setting, as container engines mount secrets).
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from coupons.batching import paced_batch
from coupons.errors import UserError
from coupons.service_url import ServiceUrl, parse_broker_url, parse_database_url

PREFIX = "COUPONS_"


class SettingsError(UserError):
    """A setting has an invalid value."""


def _url(parse: Callable[[str], ServiceUrl]) -> AfterValidator:
    """A validator that percent-encodes user and password, before a library parses the URL and quotes it in errors."""
    return AfterValidator(lambda secret: SecretStr(str(parse(secret.get_secret_value()))))


class Settings(BaseSettings):
    """The environment variable of a field is `COUPONS_` and the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    activated: bool = Field(
        True,
        description="Whether the Coupon Manager is activated on this system. `false` refuses coupon commands: imports "
        "of codes, new sendouts whose message prints coupons, and changes of lists and of such messages. All else "
        "continues, also sendouts that were accepted before",
    )

    database_url: Annotated[SecretStr, _url(parse_database_url)] = Field(
        SecretStr("postgresql://coupons@127.0.0.1/coupons"), description="PostgreSQL connection URL"
    )
    broker_url: Annotated[SecretStr, _url(parse_broker_url)] = Field(
        SecretStr("amqp://guest:guest@127.0.0.1/"), description="RabbitMQ connection URL: `amqp://…` or `amqps://…`"
    )
    smtp_url: SecretStr = Field(
        SecretStr("smtp://127.0.0.1:25"),
        description="SMTP relays, separated by spaces: `smtp://user:password@host:587` (requires STARTTLS, except on "
        "loopback or with `?tls=none`) or `smtps://…`; `?weight=2` gives a relay twice as many connections",
    )

    default_from: str = Field(
        "",
        description="`From` header of messages that are saved without a sender, such as `Shop <shop@example.org>`",
    )
    bounce_address: str = Field(
        "",
        description="Envelope sender, which receives bounces; `{id}`, as in `bounces+{id}@example.org`, is replaced by "
        "the local part of the mail's Message-ID, which identifies the delivery. Empty: the address in `From`",
    )
    unsubscribe_url: str = Field(
        "",
        description="URL of the `List-Unsubscribe` header (one click, RFC 8058); `{address}` and `{message_id}` are "
        "filled in. Empty: no header",
    )
    mails_per_hour: int = Field(
        0,
        ge=0,
        description="Maximum mails per hour of all workers together; every worker needs the same value. 0: no limit",
    )
    uncertain_policy: Literal["ask", "resend", "accept"] = Field(
        "ask",
        description="What to do with uncertain mails, which the relay may have accepted: `ask` leaves the decision to "
        "an operator, `resend` sends them again, `accept` counts them as sent",
    )
    retry_hours: float = Field(
        24, gt=0, description="How long a deferred delivery is retried before it is refused and its code is returned"
    )
    after_seconds: float = Field(
        3_600,
        gt=0,
        description="How long a sendout or resume command waits for an import in `after` that has not arrived; it is "
        "then rejected",
    )

    smtp_connections: int = Field(
        10,
        ge=1,
        le=200,
        description="Maximum SMTP connections per worker process, all relays together. While some connections are "
        "stalled (no reply for 30 s), up to twice as many are open",
    )
    smtp_mails_per_connection: int = Field(
        1_000, ge=0, description="Mails sent over an SMTP connection before it is replaced; 0: no limit"
    )
    smtp_idle_seconds: float = Field(30, gt=0, description="Idle time after which an SMTP connection is closed")
    smtp_final_reply_timeout_seconds: float = Field(
        600, gt=0, description="How long to wait for a relay's final reply to a mail before the mail is uncertain"
    )
    smtp_backoff_seconds: float = Field(
        1, gt=0, description="Delay before the first retry of a failing relay; it doubles with each further failure"
    )
    smtp_max_backoff_seconds: float = Field(60, gt=0, description="Maximum delay between retries of a failing relay")
    smtp_ehlo_hostname: str = Field(
        "", description="Host name that the worker sends in EHLO. Empty: the host name of its machine"
    )

    import_folder: Path | None = Field(
        None, description="Folder that `file:` sources are read from. Empty: `file:` sources are rejected"
    )
    import_hosts: str = Field(
        "",
        description="Hosts that `https:` sources may be downloaded from, separated by spaces or commas: "
        "`shop.example`, `files.example:8443`. Empty: `https:` sources are rejected",
    )
    import_private_hosts: bool = Field(
        False,
        description="Whether the hosts in `COUPONS_IMPORT_HOSTS` may have private addresses, such as loopback or a "
        "local network",
    )
    import_buckets: str = Field(
        "",
        description="Buckets that `s3:` sources may be downloaded from, separated by spaces or commas. Empty: `s3:` "
        "sources are rejected. The credentials and the endpoint come from the usual variables: `AWS_ACCESS_KEY_ID`, "
        "`AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`",
    )
    import_max_bytes: int = Field(
        2_000_000_000, gt=0, description="Maximum bytes of a source; the same limit applies to its decompressed text"
    )
    import_max_ratio: int = Field(
        200, gt=0, description="Maximum ratio of a source's decompressed size to its compressed size (gzip, zip)"
    )
    import_max_lines: int = Field(100_000_000, gt=0, description="Maximum number of lines of a source")
    rejected_lines_retention_days: int = Field(
        90, ge=1, description="How long the rejected lines of an import are kept; they contain codes or addresses"
    )

    batch_size: int = Field(1_000, ge=1, le=5_000, description="Maximum number of deliveries in a batch")
    concurrent_batches: int = Field(
        2, ge=1, le=16, description="Batches that a worker process delivers at the same time"
    )
    max_in_flight: int = Field(
        200,
        ge=1,
        le=5_000,
        description="Maximum mails in flight per worker process: the most that become uncertain if it is killed",
    )
    lease_seconds: float = Field(
        45,
        gt=0,
        description="How long a worker keeps its work without renewing its lease; afterwards another worker may claim "
        "the work",
    )
    heartbeat_seconds: float = Field(
        10,
        gt=0,
        description="Interval at which a worker renews its leases and shows a sign of life; must be less than "
        "`COUPONS_LEASE_SECONDS`",
    )
    sweep_seconds: float = Field(
        15,
        gt=0,
        description="Interval at which a worker looks for work in the database, in case a notification of it was lost, "
        "and for changes of recurring imports",
    )

    log_format: Literal["console", "json"] = Field("console", description="Format of the log on stderr")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged")
    health_host: str = Field(
        "127.0.0.1", description="Address that a worker listens on for health checks (`/livez` and `/readyz`)"
    )
    health_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port of a worker's health checks, which `coupons ready` uses as well; 0: no health checks",
    )

    web_host: str = Field("127.0.0.1", description="Address that `coupons web` listens on")
    web_port: int = Field(8080, ge=0, le=65_535, description="Port that `coupons web` listens on; 0: any free port")
    web_token: SecretStr = Field(
        SecretStr(""),
        description="Bearer token of the HTTP API and password of the web console (with any user name); required "
        "unless `COUPONS_WEB_HOST` is a loopback address",
    )

    @model_validator(mode="after")
    def _check_heartbeat(self) -> Self:
        if self.heartbeat_seconds >= self.lease_seconds:
            raise ValueError("COUPONS_HEARTBEAT_SECONDS must be less than COUPONS_LEASE_SECONDS")
        return self

    @property
    def effective_batch_size(self) -> int:
        """`batch_size`, or fewer deliveries if `mails_per_hour` is set, so that no worker holds a batch for long."""
        return paced_batch(self.batch_size, self.mails_per_hour or None)


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: its one line contains each invalid variable, but never a value, which may be a misplaced secret.
    """
    secrets = os.environ.get(f"{PREFIX}SECRETS_DIR")
    try:
        return Settings(_secrets_dir=secrets) if secrets else Settings()
    except ValidationError as error:
        reasons = (_reason(each["loc"], each.get("ctx", {})) for each in error.errors(include_input=False))
        raise SettingsError("; ".join(reasons)) from None


def _reason(path: tuple[int | str, ...], context: dict[str, Any]) -> str:
    if "error" in context:  # one of our validators, whose text has the name of the setting
        return str(context["error"])
    name = str(path[0])
    return f"{PREFIX}{name.upper()}: must be {valid_values(Settings.model_fields[name])}"


def valid_values(setting: FieldInfo) -> str:
    """The values that a setting accepts, in words: `an integer from 1 to 200`."""
    kind = setting.annotation
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"{'an integer' if kind is int else 'a number'} {_range(setting)}"
    return "a path" if kind == Path | None else "text"


def _range(setting: FieldInfo) -> str:
    limits = {
        name: getattr(each, name) for each in setting.metadata for name in ("ge", "gt", "le") if hasattr(each, name)
    }
    match limits:
        case {"ge": least, "le": most}:
            return f"from {least} to {most}"
        case {"ge": least}:
            return f"of at least {least}"
        case {"gt": bound}:
            return f"greater than {bound}"
    return ""
