"""The contract: the commands that producers may publish, and how bytes are decoded into one.

A command is a JSON object in UTF-8. The publisher chooses its `id`, which is an idempotency key and becomes the id of
the import or sendout. docs/reference/contract/ contains the same as JSON Schema, generated from these models.
"""

import hashlib
import json
import re
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self
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
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from coupons.addresses import AddressError, parse_address
from coupons.attributes import (
    CONTROL,
    MAX_ATTRIBUTE_CHARS,
    MAX_ATTRIBUTE_NAME,
    MAX_ATTRIBUTES,
    RESERVED,
    is_attribute_name,
)
from coupons.errors import UserError
from coupons.files.conditions import parse_condition
from coupons.files.decoding import FileError
from coupons.files.format import FileFormat, is_encoding
from coupons.names import parse_name
from coupons.states import ImportMode

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_COMMAND_BYTES = 1_048_576
MAX_INLINE = 1_000
"""Maximum number of codes or recipients in the body of a command; more of them need a `source` or a group."""
MAX_MINUTES = 60 * 24 * 31
MAX_PER_HOUR = 1_000_000_000
MAX_FIRST = 1_000_000_000
FIRST_YEAR, LAST_YEAR = 1970, 9998
"""The years allowed for a start time: Python and Postgres can represent them in every time zone."""
MAX_COLUMN = 10_000
MAX_SKIPPED = 1_000
MAX_CHOSEN, MAX_CONDITIONS = 100, 20
"""Maximum numbers of columns and conditions in the format of an import."""
MAX_AFTER = 100
"""Maximum number of imports that a command can name in `after`."""
MAX_REASONS = 100
"""Maximum number of reasons reported for an invalid command: 1 MiB can contain half a million errors, 22 MB of text."""
SOURCES = ("upload", "file", "https", "s3", "import")


class InvalidCommand(UserError):
    """The command is invalid. `reasons` contain no values, because codes are money."""

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


_HAS_CREDENTIALS = re.compile(r"//[^/?#]*@").match


def _source(text: str) -> str:
    scheme, _, rest = text.partition(":")
    if scheme.lower() not in SOURCES:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}:' for scheme in SOURCES)}")
    if _HAS_CREDENTIALS(rest):
        raise ValueError("must not contain a user or password")
    if scheme.lower() in ("upload", "import"):
        rest = _canonical_id(rest)
    return f"{scheme.lower()}:{rest}"


def _canonical_id(text: str) -> str:
    """Return one spelling of the id of an upload or an import, because imports are looked up by their source."""
    try:
        return str(UUID(text))
    except ValueError:
        return text


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _attribute(name: str) -> str:
    if not is_attribute_name(name) or name in RESERVED:
        raise ValueError("an attribute name consists of lower-case letters, digits and _, and is not a reserved word")
    return name


def _printable(text: str) -> str:
    if CONTROL(text):
        raise ValueError("contains a control character")
    return text


def _encoding(text: str) -> str:
    if not is_encoding(text):
        raise ValueError("unknown encoding; examples: cp1252, iso-8859-2, utf-16")
    return text


def _condition(text: str) -> str:
    """Check a condition on rows before the import is accepted."""
    try:
        parse_condition(text)
    except FileError:
        raise ValueError("not a condition: write COLUMN=VALUE or COLUMN!=VALUE") from None
    return text


def _name_or_number(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One error for the two types that are allowed."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError(
            f"must be a name of at most 200 printable characters, or a number from 1 to {MAX_COLUMN}"
        ) from None


def _separator(text: str) -> str:
    return text if text == "\t" else _printable(text)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode") from None
    return text


def _start(at: datetime) -> datetime:
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError(f"the year must be between {FIRST_YEAR} and {LAST_YEAR}")
    return at


def _distinct(ids: tuple[UUID, ...]) -> tuple[UUID, ...]:
    if len(set(ids)) < len(ids):
        raise ValueError("contains an id twice")
    return ids


def _items(most: int, *, least: int = 0) -> BeforeValidator:
    """A validator that counts the items before they are validated: validating half a million takes two seconds.

    pydantic's `min_length` counts only valid items, so it would also report an array of one invalid item as empty.
    """

    def count(items: Any) -> Any:
        if isinstance(items, list | tuple | dict):
            if len(items) > most:
                raise ValueError(f"{len(items)} items exceed the limit of {most}")
            if len(items) < least:
                raise ValueError("must not be empty")
        return items

    return BeforeValidator(count)


def _address(text: str) -> str:
    try:
        return parse_address(text).address
    except AddressError as error:
        reason = error.reason
    raise ValueError(reason)  # not chained: the error quotes the address


Name = Annotated[str, AfterValidator(parse_name)]
Email = Annotated[str, AfterValidator(_address)]
Source = Annotated[str, Field(max_length=2_000), AfterValidator(_printable), AfterValidator(_source)]
Code = Annotated[str, AfterValidator(_unicode)]
FormatText = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_printable)]
Condition = Annotated[FormatText, AfterValidator(_condition)]
ColumnChoice = Annotated[
    Annotated[str, Field(max_length=200), AfterValidator(_printable)] | Annotated[int, Field(ge=1, le=MAX_COLUMN)],
    WrapValidator(_name_or_number),
]
Attribute = Annotated[str, Field(max_length=MAX_ATTRIBUTE_NAME), AfterValidator(_attribute)]
StartAt = Annotated[AwareDatetime, AfterValidator(_start)]
PerHour = Annotated[int, Field(ge=1, le=MAX_PER_HOUR)]
OverMinutes = Annotated[int, Field(ge=1, le=MAX_MINUTES)]
AttributeText = Annotated[str, Field(max_length=MAX_ATTRIBUTE_CHARS), AfterValidator(_printable)]
After = Annotated[
    tuple[UUID, ...],
    Field(max_length=MAX_AFTER, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_distinct),
    _items(MAX_AFTER),
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    later: ClassVar[tuple[str, ...]] = ()
    """Fields that later versions added. While they have their default value, the digest of a command omits them."""

    def excluded_from_digest(self) -> dict[str, Any]:
        """The fields that the digest omits."""
        inner = {name: value.excluded_from_digest() for name, value in self if isinstance(value, _Frozen)}
        return inner | {name: True for name in self.later if getattr(self, name) == self._default(name)}

    @classmethod
    def _default(cls, name: str) -> Any:
        return cls.model_fields[name].default


class Format(_Frozen):
    """How to read the file. Omitted fields are detected from the file; an omitted encoding is UTF-8."""

    later = ("header", "sheet", "skip_lines", "columns", "where", "allow_lookalikes", "force_encoding")

    kind: Literal["txt", "csv"] | None = Field(None, description="One code per line (txt), or columns (csv)")
    separator: Annotated[str, Field(min_length=1, max_length=1), AfterValidator(_separator)] | None = Field(
        None, description="Column separator of a csv file"
    )
    encoding: Annotated[str, Field(max_length=40), AfterValidator(_printable), AfterValidator(_encoding)] = Field(
        "utf-8", description="Text encoding: the name of a Python codec"
    )
    column: ColumnChoice | None = Field(
        None, description="Column of the codes or addresses: its name or its number, counted from 1"
    )
    header: bool | None = Field(None, description="Whether the first line of a csv file names the columns")
    sheet: ColumnChoice | None = Field(
        None, description="Sheet of a spreadsheet: its name or its number, counted from 1; default: the first"
    )
    skip_lines: Annotated[int, Field(ge=0, le=MAX_SKIPPED)] = Field(
        0, description="Number of lines before the table, or before the first code, that are not read"
    )
    columns: Annotated[tuple[FormatText, ...], Field(max_length=MAX_CHOSEN), _items(MAX_CHOSEN)] = Field(
        (), description="Columns of a group's file that become attributes: Name, or Name=attribute; default: all"
    )
    where: Annotated[tuple[Condition, ...], Field(max_length=MAX_CONDITIONS), _items(MAX_CONDITIONS)] = Field(
        (), description="Import only the rows that meet all conditions: Column=value or Column!=value"
    )
    allow_lookalikes: bool = Field(
        False, description="Accept codes that mix scripts, full-width characters or several kinds of dash"
    )
    force_encoding: bool = Field(False, description="Read the file in `encoding` although its bytes are valid UTF-8")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self.as_file_format()  # raises FileError, a ValueError: a txt file with columns
        if self.force_encoding and self.encoding == "utf-8":
            raise ValueError("force_encoding needs an encoding other than utf-8")
        return self

    def as_file_format(self) -> FileFormat:
        return FileFormat(**self.model_dump())


class Recipient(_Frozen):
    """An address, and the attributes that the message's template may print."""

    email: Email
    attributes: Annotated[dict[Attribute, AttributeText], Field(max_length=MAX_ATTRIBUTES), _items(MAX_ATTRIBUTES)] = {}


class _Command(_Frozen):
    id: UUID = Field(
        default_factory=uuid4,
        description="Idempotency key, chosen by the publisher: commands with the same id are executed once",
    )

    def body(self) -> bytes:
        """The bytes to publish."""
        return self.model_dump_json(exclude_none=True).encode()

    def digest(self) -> bytes:
        """SHA-256 of the content. Two commands with the same id must have the same digest."""
        content = self.model_dump(mode="json", exclude={"id": True, **self.excluded_from_digest()})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


class ImportCoupons(_Command):
    """Import codes into a list, or recipients into a group."""

    later = ("group", "confirmed", "allow_empty")

    type: Literal["import"] = "import"
    list: Name | None = Field(
        None, description="List to import codes into; exactly one of `list` and `group` is required"
    )
    group: Name | None = Field(
        None,
        description="Group to import recipients into, from a csv file with a header; created if it does not exist",
    )
    mode: ImportMode = Field(
        ImportMode.ADD,
        description="`add` adds the given codes or recipients, `replace` also removes all other available codes or all "
        "other recipients, `delete` removes the given ones, `undo` takes back what the import of `source` added and "
        "restores what it removed",
    )
    codes: (
        Annotated[
            tuple[Code, ...],
            Field(max_length=MAX_INLINE, json_schema_extra={"minItems": 1}),
            _items(MAX_INLINE, least=1),
        ]
        | None
    ) = Field(None, description="Codes to import, instead of a file; exactly one of `codes` and `source` is required")
    source: Source | None = Field(
        None,
        description="Where the file is: `upload:ID`, `file:PATH`, `https://HOST/PATH`, `s3://BUCKET/KEY`, or "
        "with mode `undo` `import:ID`",
    )
    format: Format = Field(Format(), description="How to read the file of `source`")
    confirmed: bool = Field(
        False,
        description="An operator has seen the numbers: replace or delete even if more than half of the lines are "
        "rejected, and import codes that look like those of another list",
    )
    allow_empty: bool = Field(False, description="Replace although no line of the file is accepted")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.codes is None) == (self.source is None):
            raise ValueError("exactly one of codes and source is required")
        return self

    @model_validator(mode="after")
    def _undoes_an_import(self) -> Self:
        scheme, _, undone = (self.source or "").partition(":")
        if (scheme == "import") != (self.mode == ImportMode.UNDO):
            raise ValueError("mode undo and a source import:ID need each other")
        if scheme == "import" and not _is_id(undone):
            raise ValueError("an import source has the form import:<id>, where the id is a UUID")
        return self

    @model_validator(mode="after")
    def _has_no_idle_option(self) -> Self:
        """An option that would have no effect is a mistake."""
        if self.list is not None and self.format.columns:
            raise ValueError("format.columns needs a group: codes have no attributes")
        if self.group is not None and self.format.allow_lookalikes:
            raise ValueError("format.allow_lookalikes needs a list: only codes are checked for look-alikes")
        return self

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.list is None) == (self.group is None):
            raise ValueError("exactly one of list and group is required")
        if self.group is not None and self.codes is not None:
            raise ValueError("codes can only be imported into a list; a group needs a source")
        if self.group is not None and (self.format.kind == "txt" or self.format.header is False):
            raise ValueError("recipients need a csv file with a header")
        return self


class StartSendout(_Command):
    """Mail a message to the recipients of a group, or to the recipients given in the command."""

    later = ("start_at", "per_hour", "over_minutes", "auto_resume", "after", "first", "skip_already_mailed")

    type: Literal["sendout"] = "sendout"
    message: Name = Field(description="Name of the message; its newest version is sent")
    group: Name | None = Field(
        None, description="Group to send to; exactly one of `group` and `recipients` is required"
    )
    recipients: (
        Annotated[
            tuple[Recipient, ...],
            Field(max_length=MAX_INLINE, json_schema_extra={"minItems": 1}),
            _items(MAX_INLINE, least=1),
        ]
        | None
    ) = Field(None, description="Recipients to send to, instead of a group")
    start_at: StartAt | None = Field(
        None,
        description="Time, with a time zone, before which no mail is sent. Workers accept a time in the past, which "
        "means now, because the command may have waited in its queue",
    )
    per_hour: PerHour | None = Field(None, description="Maximum mails per hour")
    over_minutes: OverMinutes | None = Field(None, description="Spread the mails evenly over this many minutes")
    auto_resume: bool = Field(
        False, description="If interrupted, resume automatically once the lists have enough codes"
    )
    after: After = Field(
        (),
        description="Ids of imports that must have finished before the sendout is prepared; they may arrive later than "
        "this command",
    )
    first: Annotated[int, Field(ge=1, le=MAX_FIRST)] | None = Field(
        None, description="Mail only this number of recipients, then pause; a resume mails the others"
    )
    skip_already_mailed: bool = Field(
        False,
        description="Leave out recipients who got a version of this message in an earlier sendout: their mail was sent "
        "or is uncertain",
    )

    @model_validator(mode="after")
    def _one_pace(self) -> Self:
        if self.per_hour is not None and self.over_minutes is not None:
            raise ValueError("per_hour and over_minutes cannot be combined")
        return self

    @model_validator(mode="after")
    def _one_audience(self) -> Self:
        if (self.group is None) == (self.recipients is None):
            raise ValueError("exactly one of group and recipients is required")
        return self


class ResumeSendout(_Command):
    """Resume a sendout that is interrupted (not enough codes) or paused."""

    later = ("after",)

    type: Literal["resume"] = "resume"
    sendout: UUID = Field(description="Id of the sendout")
    after: After = Field(
        (),
        description="Ids of imports that must have finished before the sendout is resumed; they may arrive later than "
        "this command",
    )


_MESSAGES = {
    "missing": "required",
    "extra_forbidden": "unknown field",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "exceeds the limit of {max_length} characters",
    "too_long": "exceeds the limit of {max_length} items",
    "string": "must be a valid Unicode string",
    "int": "must be an integer",
    "bool": "must be true or false",
    "uuid": "must be a UUID",
    "datetime": "must be a date and time with a time zone (RFC 3339)",
    "timezone": "must be a date and time with a time zone (RFC 3339)",
    "tuple": "must be an array",
    "dict": "must be an object",
    "model": "must be an object",
}
"""Messages by pydantic's error type, or by the part of that type before the first underscore."""

type_of: dict[str, type[BaseModel]] = {"import": ImportCoupons, "sendout": StartSendout, "resume": ResumeSendout}
Command = ImportCoupons | StartSendout | ResumeSendout
_ADAPTER: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])


def decode(body: bytes) -> Command:
    """Decode the body of an AMQP message.

    Raises InvalidCommand with all errors at once. `id` is required: an id that is generated here could not be reused
    by the publisher for a retry.
    """
    if len(body) > MAX_COMMAND_BYTES:
        raise InvalidCommand([f"{len(body)} bytes exceed the limit of {MAX_COMMAND_BYTES}"])
    try:
        content = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise InvalidCommand(["not valid UTF-8 JSON"]) from None
    if not isinstance(content, dict):
        raise InvalidCommand(["not a JSON object"])
    missing_id = [] if "id" in content else [f"id: {_MESSAGES['missing']}"]
    try:
        command = _ADAPTER.validate_python(content, strict=False)
    except ValidationError as error:
        raise InvalidCommand(missing_id + reasons_of(error)) from None
    if missing_id:
        raise InvalidCommand(missing_id)
    return command


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The JSON object. Raises InvalidCommand for a repeated field: JSON readers disagree on which of the two counts."""
    content = dict(pairs)
    if len(content) < len(pairs):
        [(repeated, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidCommand([f"{_name(repeated)}: duplicate field"])
    return content


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def reasons_of(error: ValidationError) -> list[str]:
    """The first MAX_REASONS errors, each as `field: what is wrong`, without the value."""
    errors = error.errors(include_url=False, include_input=False)
    reasons = [_reason(each) for each in errors[:MAX_REASONS]]
    return [*reasons, f"and {len(errors) - MAX_REASONS} more"] if len(errors) > MAX_REASONS else reasons


def _reason(error: "ErrorDetails") -> str:
    """The error as `field: what is wrong`. pydantic's location begins with the command's type, which is omitted."""
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"type: must be one of {', '.join(type_of)}"
    location = error["loc"]
    field = ".".join(map(_name, location[1:] if location[:1] and location[0] in type_of else location))
    reason = _message(error["type"], error.get("ctx", {}))
    return f"{field}: {reason}" if field else reason


def _message(kind: str, context: dict[str, Any]) -> str:
    """The message for a pydantic error; pydantic's own texts are written for developers."""
    if kind == "value_error":
        return str(context["error"])
    family = kind.partition("_")[0]
    return _MESSAGES.get(kind, _MESSAGES.get(family, "invalid value")).format_map(context)


def _name(part: int | str) -> str:
    """A field's name or a position. Other names become `…`, because they may be an address or a code."""
    return str(part) if isinstance(part, int) or is_attribute_name(part) else "…"
