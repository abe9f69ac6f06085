"""The contract: what a producer may publish, and how bytes become a command.

A command is a JSON object in UTF-8. `id` is chosen by the publisher and becomes the id of the import or sendout; the
same id again is the same command. docs/reference/contract/ holds the same as JSON Schema, made from these models.
"""

import hashlib
import json
import re
from collections import Counter
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from coupons.addresses import AddressError, parse_address
from coupons.errors import UserError
from coupons.files.code_reader import FileFormat, is_encoding
from coupons.files.codes import list_name
from coupons.templates.rendering import RESERVED

MAX_COMMAND_BYTES = 1_048_576
MAX_INLINE = 1_000
"""Codes or recipients in a command's own body; more go through `source` or a group."""
MAX_MINUTES = 60 * 24 * 31
MAX_PER_HOUR = 1_000_000_000
FIRST_YEAR, LAST_YEAR = 1970, 9998
"""Of a start: in any time zone it is a date that Python and Postgres have."""
MAX_COLUMN = 10_000
MAX_REASONS = 100
"""Of an invalid command: a mebibyte can have half a million errors, which are 22 MB in words."""
MAX_ATTRIBUTES = 100
MAX_ATTRIBUTE_CHARS = 1_000
SOURCES = ("upload", "file", "https", "s3")

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
"""What no attribute and no source may hold; joiners are letters' parts in names, and allowed."""

_ATTRIBUTE = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)


class InvalidCommand(UserError):
    """Not a command: every reason, and none of the values (codes are money)."""

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


def _source(text: str) -> str:
    scheme, _, rest = text.partition(":")
    if scheme.lower() not in SOURCES:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}:' for scheme in SOURCES)}")
    return f"{scheme.lower()}:{_one_spelling(rest) if scheme.lower() == 'upload' else rest}"


def _one_spelling(upload_id: str) -> str:
    """An import is looked for by what its source says."""
    try:
        return str(UUID(upload_id))
    except ValueError:
        return upload_id


def _attribute(name: str) -> str:
    if not _ATTRIBUTE.fullmatch(name) or name in RESERVED:
        raise ValueError("an attribute's name is lower-case letters, digits and _, and not a reserved word")
    return name


def _shown(text: str) -> str:
    if CONTROL(text):
        raise ValueError("holds a control character")
    return text


def _encoding(text: str) -> str:
    if not is_encoding(text):
        raise ValueError("there is no encoding of this name")
    return text


def _separator(text: str) -> str:
    return text if text == "\t" else _shown(text)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode") from None
    return text


def _start(at: datetime) -> datetime:
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError(f"the year must be one of {FIRST_YEAR} to {LAST_YEAR}")
    return at


def _at_most(most: int) -> BeforeValidator:
    """Counted before each of too many is looked at: half a million of them take two seconds."""

    def count(items: Any) -> Any:
        if isinstance(items, list | dict) and len(items) > most:
            raise ValueError(f"{len(items)} of them, at most {most} are taken")
        return items

    return BeforeValidator(count)


def _address(text: str) -> str:
    try:
        return parse_address(text).address
    except AddressError as error:
        reason = error.reason
    raise ValueError(reason)  # not chained: the error quotes the address


Name = Annotated[str, AfterValidator(list_name)]
Source = Annotated[str, Field(max_length=2_000), AfterValidator(_shown), AfterValidator(_source)]
Code = Annotated[str, AfterValidator(_unicode)]
Attribute = Annotated[str, Field(max_length=50), AfterValidator(_attribute)]
AttributeText = Annotated[str, Field(max_length=MAX_ATTRIBUTE_CHARS), AfterValidator(_shown)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    later: ClassVar[tuple[str, ...]] = ()
    """Fields that did not always exist: left at their defaults, they leave a command's digest as it was."""

    def unsaid(self) -> dict[str, Any]:
        """The fields that the digest leaves out."""
        inner = {name: value.unsaid() for name, value in self if isinstance(value, _Frozen)}
        return inner | {name: True for name in self.later if getattr(self, name) == self._default(name)}

    @classmethod
    def _default(cls, name: str) -> Any:
        return cls.model_fields[name].default


class Format(_Frozen):
    """How to read the file. Omitted fields are detected from the file, except the encoding."""

    later = ("header",)

    kind: Literal["txt", "csv"] | None = Field(None, description="One code per line (txt), or columns (csv)")
    separator: Annotated[str, Field(min_length=1, max_length=1), AfterValidator(_separator)] | None = Field(
        None, description="Column separator of a csv file"
    )
    encoding: Annotated[str, Field(max_length=40), AfterValidator(_shown), AfterValidator(_encoding)] = Field(
        "utf-8", description="Text encoding: the name of a Python codec"
    )
    column: (
        Annotated[str, Field(max_length=200), AfterValidator(_shown)]
        | Annotated[int, Field(ge=1, le=MAX_COLUMN)]
        | None
    ) = Field(None, description="Column of the codes or addresses: its name or its number, counted from 1")
    header: bool | None = Field(None, description="Whether the first line of a csv file names the columns")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self.as_file_format()  # raises FileError, a ValueError: a txt file with columns
        return self

    def as_file_format(self) -> FileFormat:
        return FileFormat(**self.model_dump())


class Recipient(_Frozen):
    """An address, and the attributes that the message's template may print."""

    email: Annotated[str, AfterValidator(_address)]
    attributes: Annotated[
        dict[Attribute, AttributeText], Field(max_length=MAX_ATTRIBUTES), _at_most(MAX_ATTRIBUTES)
    ] = {}


class _Command(_Frozen):
    id: UUID = Field(
        default_factory=uuid4, description="Idempotency key, chosen by the publisher: a repeated id is the same command"
    )

    def body(self) -> bytes:
        """The bytes to publish."""
        return self.model_dump_json(exclude_none=True).encode()

    def digest(self) -> bytes:
        """What two commands of one id must share: sha256 of the content."""
        content = self.model_dump(mode="json", exclude={"id": True, **self.unsaid()})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


class ImportCoupons(_Command):
    """Import codes into a list, or recipients into a group."""

    later = ("group",)

    type: Literal["import"] = "import"
    list: Name | None = Field(None, description="List to import codes into; either `list` or `group` is required")
    group: Name | None = Field(
        None, description="Group to import recipients into, from a csv file with a header; created if missing"
    )
    mode: Literal["add", "replace", "delete"] = Field(
        "add",
        description="Add the codes or recipients, replace all available ones with them, or delete them",
    )
    codes: Annotated[tuple[Code, ...], Field(min_length=1, max_length=MAX_INLINE), _at_most(MAX_INLINE)] | None = Field(
        None, description="The codes themselves; either `codes` or `source` is required"
    )
    source: Source | None = Field(
        None, description="Where the file is: `upload:ID`, `file:PATH`, `https://HOST/PATH` or `s3://BUCKET/KEY`"
    )
    format: Format = Field(Format(), description="How to read the file of `source`")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.codes is None) == (self.source is None):
            raise ValueError("needs either codes or source")
        return self

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.list is None) == (self.group is None):
            raise ValueError("needs either list or group")
        if self.group is not None and self.codes is not None:
            raise ValueError("codes are for a list; a group needs a source")
        if self.group is not None and (self.format.kind == "txt" or self.format.header is False):
            raise ValueError("recipients are read from a csv file with a header")
        return self


class StartSendout(_Command):
    """Mail a message to the recipients of a group, or to the recipients given in the command."""

    later = ("start_at", "per_hour", "over_minutes", "auto_resume")

    type: Literal["sendout"] = "sendout"
    message: Name = Field(description="Name of the message; its newest version is sent")
    group: Name | None = Field(None, description="Group to send to; either `group` or `recipients` is required")
    recipients: (
        Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=MAX_INLINE), _at_most(MAX_INLINE)] | None
    ) = Field(None, description="Recipients to send to, instead of a group")
    start_at: Annotated[AwareDatetime, AfterValidator(_start)] | None = Field(
        None, description="Time before which no mail is sent, with a time zone"
    )
    per_hour: Annotated[int, Field(ge=1, le=MAX_PER_HOUR)] | None = Field(None, description="Maximum mails per hour")
    over_minutes: Annotated[int, Field(ge=1, le=MAX_MINUTES)] | None = Field(
        None, description="Spread the mails evenly over this many minutes"
    )
    auto_resume: bool = Field(
        False, description="If interrupted, resume automatically once the lists have enough codes"
    )

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.per_hour is not None and self.over_minutes is not None:
            raise ValueError("needs at most one of per_hour and over_minutes")
        return self

    @model_validator(mode="after")
    def _one_audience(self) -> Self:
        if (self.group is None) == (self.recipients is None):
            raise ValueError("needs either group or recipients")
        return self


class ResumeSendout(_Command):
    """Resume a sendout that is interrupted (not enough codes) or paused."""

    type: Literal["resume"] = "resume"
    sendout: UUID = Field(description="Id of the sendout")


type_of: dict[str, type[BaseModel]] = {"import": ImportCoupons, "sendout": StartSendout, "resume": ResumeSendout}
Command = ImportCoupons | StartSendout | ResumeSendout
_ADAPTER: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])


def decode(body: bytes) -> Command:
    """The command in an AMQP message's body.

    Raises:
        InvalidCommand: with all its errors at once; `id` must be given, since only the publisher can repeat it.
    """
    if len(body) > MAX_COMMAND_BYTES:
        raise InvalidCommand([f"{len(body)} bytes, at most {MAX_COMMAND_BYTES} are taken"])
    try:
        content = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidCommand(["not JSON in UTF-8"]) from None
    if not isinstance(content, dict):
        raise InvalidCommand(["not a JSON object"])
    missing_id = [] if "id" in content else ["id: Field required"]
    try:
        command = _ADAPTER.validate_python(content, strict=False)
    except ValidationError as error:
        raise InvalidCommand(missing_id + reasons_of(error)) from None
    if missing_id:
        raise InvalidCommand(missing_id)
    return command


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two fields of one name counts depends on who reads it."""
    content = dict(pairs)
    if len(content) < len(pairs):
        [(repeated, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidCommand([f"{_name(repeated)}: is there twice"])
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def reasons_of(error: ValidationError) -> list[str]:
    """Each error as `field: what is wrong`, without the value; the first MAX_REASONS of them."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    told = [_reason(each["type"], each["loc"], each["msg"]) for each in errors[:MAX_REASONS]]
    return [*told, f"and {len(errors) - MAX_REASONS} more"] if len(errors) > MAX_REASONS else told


def _reason(kind: str, place: tuple[int | str, ...], text: str) -> str:
    """As `field: what is wrong`; places begin with the command's type, which is no field."""
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return f"type: must be one of {', '.join(type_of)}"
    field = ".".join(map(_name, place[1:] if place[:1] and place[0] in type_of else place))
    reason = text.removeprefix("Value error, ")  # pydantic's words for what a check of ours said
    return f"{field}: {reason}" if field else reason


def _name(part: int | str) -> str:
    """A field's name, or a position; what a publisher made up may be an address or a code, and is not repeated."""
    return str(part) if isinstance(part, int) or _ATTRIBUTE.fullmatch(part) else "…"
