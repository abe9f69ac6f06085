"""`coupons message …`: the templates that sendouts mail."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from producers.cli.confirm import confirm_deletion, yes_option
from producers.cli.group import Group
from producers.cli.output import as_json, counted, emit_json, emit_table, emit_warnings, moment
from producers.cli.runtime import Failed, asynchronous, database, settings

if TYPE_CHECKING:
    from coupons.database import Connection
    from coupons.mail import Envelope, File
    from coupons.settings import Settings
    from coupons.smtp import Relays
    from coupons.templates.alternative import AlternativeText
    from coupons.templates.rendering import Coupon, Template

file_path = click.Path(exists=True, dir_okay=False, path_type=Path)
no_codes = click.option(
    "--no-codes",
    is_flag=True,
    help="Show the mail of a recipient for whom no codes are left: with the alternative texts.",
)
attribute_values = click.option(
    "--set", "--attribute", "attributes", multiple=True, metavar="NAME=VALUE", help="Value of an attribute, repeatable."
)


HELP = """\
Messages: save, show, preview, test, delete.

Subject, text and HTML may contain placeholders:

\b
  {{ first_name }}
      an attribute of the recipient
  {{ coupon("spring-10") }}
      the recipient's code from this list, or the list's alternative text
  {% if has_coupon("spring-10") %} … {% endif %}
      printed only if the recipient has a code from this list"""


@click.group("message", cls=Group, help=HELP)
def messages() -> None:
    """The commands about messages."""


@messages.command()
@click.argument("name")
@click.option("--subject", required=True, help="Subject; may contain placeholders.")
@click.option("--text", type=click.File(encoding="utf-8"), help="File with the plain text part.")
@click.option("--html", type=click.File(encoding="utf-8"), help="File with the HTML part.")
@click.option("--from", "sender", help='Sender, as "Shop <shop@example.org>".  [default: COUPONS_DEFAULT_FROM]')
@click.option("--reply-to", help="Reply-To address.")
@click.option("--attribute", "attributes", multiple=True, metavar="NAME",
              help="Attribute that the message may use although no group has it yet, repeatable.")  # fmt: skip
@click.option("--attach", "attachments", multiple=True, type=file_path, help="File to attach, repeatable.")
@click.option("--inline", "images", multiple=True, type=file_path,
              help='Image for the HTML, shown by <img src="cid:logo.png">, repeatable.')  # fmt: skip
@click.option("--header", "headers", multiple=True, metavar='"NAME: VALUE"',
              help='Additional header, as "X-Campaign: spring", repeatable.')  # fmt: skip
@asynchronous
async def save(
    name: str, subject: str, text: TextIO | None, html: TextIO | None, sender: str | None, reply_to: str | None,
    attributes: tuple[str, ...], attachments: tuple[Path, ...], images: tuple[Path, ...], headers: tuple[str, ...],
) -> None:  # fmt: skip
    """Save a message as its next version.

    Sendouts that already exist keep the version that they were created with. Every list that the message uses must
    exist. Every attribute must be known from a group or be declared with --attribute. Placeholders of other systems,
    such as *|FNAME|* or {name}, are reported on stderr.
    """
    from coupons.names import parse_name
    from coupons.store import messages
    from coupons.store.activation import check_message
    from coupons.templates.rendering import Parts, Template

    sender = sender or settings().default_from
    if not sender:
        raise Failed(f"message {name} has no sender: pass --from or set COUPONS_DEFAULT_FROM")
    parts = Parts(subject=subject, text=text.read() if text else None, html=html.read() if html else None)
    check_message(name, Template(parts).names.lists, activated=settings().activated)
    files = [_file(each, inline=False) for each in attachments] + [_file(each, inline=True) for each in images]
    async with database() as connection:
        saved = await messages.save(
            connection, parse_name(name), parts, sender=sender, reply_to=reply_to, declared=attributes,
            headers=_headers(headers), files=files,
        )  # fmt: skip
        needed = await messages.list_alternative_attributes(connection, saved)
    lists = f", codes from {', '.join(saved.lists)}" if saved.lists else ", no codes"
    if deciding := Template(saved.parts).deciding_attributes:
        lists += f" depending on {', '.join(deciding)}"
    along = f", with {', '.join(saved.files)}" if saved.files else ""
    click.echo(f"message {saved.name} saved, version {saved.version}{lists}{along}")
    if needed:
        click.echo(f"recipients need {', '.join(needed)} for the alternative texts of its lists")
    emit_warnings(saved.warnings)


def _file(path: Path, *, inline: bool) -> "File":
    """The file with the content type that its name suggests."""
    from mimetypes import guess_type

    from coupons.mail import File

    content_type, compressed_by = guess_type(path.name)
    if content_type is None or compressed_by:
        content_type = "application/octet-stream"
    return File(path.name, content_type, path.read_bytes(), inline=inline)


def _headers(lines: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name in headers:
            problem = "is given twice" if colon else "must be NAME: VALUE"
            raise click.BadParameter(f"{line!r} {problem}", param_hint="--header")
        headers[name] = value.strip()
    return headers


@messages.command()
@as_json
@asynchronous
async def ls(json_output: bool) -> None:
    """List all messages with their newest version."""
    from coupons.store import messages

    async with database() as connection:
        found = await messages.list_all(connection)
    if json_output:
        emit_json(found)
        return
    columns = {
        "MESSAGE": lambda row: row.name,
        "VERSION": lambda row: row.version,
        "LISTS": lambda row: row.lists,
        "ATTRIBUTES": lambda row: row.attributes,
        "FILES": lambda row: row.files,
        "FROM": lambda row: row.sender,
        "SUBJECT": lambda row: row.subject,
    }
    emit_table(found, columns, empty="no messages yet: coupons message save NAME --subject … --text FILE")


@messages.command()
@click.argument("name")
@as_json
@asynchronous
async def show(name: str, json_output: bool) -> None:
    """Show a message's newest version, with its placeholders."""
    from coupons.names import parse_name
    from coupons.store import messages

    async with database() as connection:
        message = await messages.get(connection, parse_name(name))
        needed = await messages.list_alternative_attributes(connection, message)
    if json_output:
        emit_json({**asdict(message), "alternative_attributes": needed, "warnings": message.warnings})
        return
    emit_warnings(message.warnings)
    fields = {
        "From": message.sender, "Reply-To": message.reply_to, "Subject": message.subject, **message.headers,
        "Files": ", ".join(message.files), "Lists": ", ".join(message.lists),
        "Attributes": ", ".join(message.attributes),
        "Attributes of alternative texts": ", ".join(needed),
    }  # fmt: skip
    click.echo(f"message {message.name}, version {message.version}, saved {moment(message.created_at)}")
    for field, value in fields.items():
        if value:
            click.echo(f"{field}: {value}")
    if message.deleted_lists:
        click.echo(f"Deleted lists: {', '.join(message.deleted_lists)}; save the message again to send it")
    for part, source in message.parts.by_name().items():
        if part != "subject":
            click.echo(f"\n--- {part} ---\n{source.rstrip()}")


@messages.command()
@click.argument("name")
@yes_option
@asynchronous
async def delete(name: str, yes: bool) -> None:
    """Delete a message with all its versions.

    Sendouts that have mailed it stay in the outbox, and their refused mails can be retried. Fails while an unfinished
    sendout needs the message. The name can be used for a new message.
    """
    from coupons.names import parse_name
    from coupons.store import messages
    from coupons.store.activation import check_message

    async with database() as connection:
        message = await messages.get(connection, parse_name(name))
        check_message(message.name, message.lists, activated=settings().activated)
        confirm_deletion(f"Delete message {message.name}, whose newest version is {message.version}?", yes=yes)
        versions = await messages.delete(connection, message.name)
    click.echo(f"message {message.name} deleted, with {counted(versions, 'version')}")


@messages.command()
@click.argument("name")
@attribute_values
@no_codes
@click.option("--html", is_flag=True, help="Print the HTML part instead of the text part.")
@asynchronous
async def preview(name: str, attributes: tuple[str, ...], no_codes: bool, html: bool) -> None:
    """Print a message as a recipient would see it.

    If a condition decides which coupons the mail prints, the lists that it needs are printed as well. The mail is
    checked as the mails of a sendout are. Each list's preview text is printed instead of a code. An
    attribute without a value is printed as its name in brackets: [first_name].
    """
    from coupons.names import parse_name
    from coupons.store import messages
    from coupons.templates.rendering import Template

    async with database() as connection:
        message = await messages.get(connection, parse_name(name))
        printed = await _printed_texts(connection, message.lists, no_codes=no_codes)
    given = _values(attributes)
    names = printed.attributes(message.attributes)
    values = {**_placeholders(names), "email": "[email]", **given}
    template = Template(message.parts)
    with _asking_for_values(names, given):
        coupons = printed.coupons(template, values)
        parts = template.render(values, coupons)
    click.echo(f"Subject: {parts.subject}")
    for field, value in message.headers.items():
        click.echo(f"{field}: {value}")
    if message.files:
        click.echo(f"Files: {', '.join(message.files)}")
    if template.deciding_attributes:
        click.echo(f"Codes: {', '.join(coupons) or 'none'}")
    click.echo()
    click.echo(parts.html if html or parts.text is None else parts.text)


@messages.command()
@click.argument("name")
@click.option("--to", "to", required=True, multiple=True, metavar="EMAIL", help="Address to send the test mail to,"
              " repeatable.")  # fmt: skip
@attribute_values
@no_codes
@asynchronous
async def test(name: str, to: tuple[str, ...], attributes: tuple[str, ...], no_codes: bool) -> None:
    """Send a message as a test mail to one or more addresses.

    The mail is checked as the mails of a sendout are. Preview texts are printed instead of codes, so no code is used.
    Nothing is sent if an address is invalid.
    """
    from coupons.addresses import parse_address
    from coupons.names import parse_name
    from coupons.smtp import Limits, Relays, SmtpAddress

    parsed = [parse_address(each) for each in to]
    addresses = list({each.key: each.address for each in reversed(parsed)}.values())[::-1]
    loaded = settings()
    async with database() as connection:
        envelopes = await _test_mails(
            connection, parse_name(name), addresses, _values(attributes), loaded, no_codes=no_codes
        )
    relays = SmtpAddress.parse_all(loaded.smtp_url.get_secret_value())
    limits, host = Limits(connections=1), loaded.smtp_ehlo_hostname or None
    async with Relays(relays, limits=limits, local_hostname=host) as smtp:
        unsent = [reason for each in envelopes if (reason := await _send_test(smtp, name, each))]
    if unsent:
        raise Failed("; ".join(unsent))


async def _send_test(smtp: "Relays", name: str, envelope: "Envelope") -> str | None:
    """Send a test mail. Return why it was not sent, or None if it was."""
    from coupons.smtp import Deferred, Refused, Sent, Uncertain, Unreachable

    match await smtp.send(envelope):
        case Sent(reply):
            click.echo(f"test mail of {name} sent to {envelope.rcpt_to}: {reply}")
            return None
        case Refused(reply) | Deferred(reply) | Uncertain(reply) | Unreachable(reply):
            return f"test mail of {name} to {envelope.rcpt_to} not sent: {reply}"


async def _test_mails(
    connection: "Connection", name: str, addresses: list[str], given: dict[str, str], loaded: "Settings", *,
    no_codes: bool,
) -> list["Envelope"]:  # fmt: skip
    from datetime import UTC, datetime
    from uuid import uuid4

    from coupons.message_compiler import compile_message
    from coupons.store import messages
    from coupons.store.activation import check_message

    message = await messages.get(connection, name)
    check_message(message.name, message.lists, activated=loaded.activated)
    printed = await _printed_texts(connection, message.lists, no_codes=no_codes)
    names = printed.attributes(message.attributes)
    email = compile_message(message, await messages.list_files(connection, message.id), loaded)
    envelopes = []
    for address in addresses:
        values = {**_placeholders(names), **given, "email": address}
        with _asking_for_values(names, given):
            envelope = email.write(
                rcpt=address,
                message_id=email.message_id(uuid4(), 0),
                date=datetime.now(UTC),
                attributes=values,
                coupons=printed.coupons(email.template, values),
            )
        envelopes.append(envelope)
    return envelopes


@dataclass(frozen=True, slots=True)
class _Printed:
    """What a preview prints instead of codes: preview texts by list, and alternative texts where no codes are left."""

    texts: dict[str, str]
    alternatives: "dict[str, AlternativeText]"

    def attributes(self, of_message: list[str]) -> list[str]:
        """Return the attributes that the message and the alternative texts need."""
        more = (each.required for each in self.alternatives.values())
        return sorted({*of_message}.union(*more) - {"email"})

    def coupons(self, template: "Template", values: dict[str, str]) -> "dict[str, Coupon]":
        from coupons.templates.rendering import Coupon

        printed = template.preview_coupons(values, self.texts)
        without = {name: Coupon(each.render(values), is_code=False) for name, each in self.alternatives.items()}
        return printed | {name: coupon for name, coupon in without.items() if name in printed}


async def _printed_texts(connection: "Connection", names: list[str], *, no_codes: bool) -> _Printed:
    from coupons.states import Shortage
    from coupons.store import lists
    from coupons.templates.alternative import AlternativeText

    found = await lists.get(connection, *names)
    without = [each for each in found if no_codes and each.shortage == Shortage.TEXT]
    return _Printed(
        {each.name: each.preview_text for each in found},
        {each.name: AlternativeText(each.alternative_text) for each in without},
    )


def _placeholders(attributes: list[str]) -> dict[str, str]:
    return {each: f"[{each}]" for each in attributes}


@contextmanager
def _asking_for_values(attributes: list[str], given: dict[str, str]) -> Iterator[None]:
    """Add the attributes without a value to the error of a mail that cannot be rendered: they may be the reason."""
    from coupons.templates.rendering import RenderError

    try:
        yield
    except RenderError as error:
        options = " ".join(f"--set {each}=VALUE" for each in attributes if each not in given)
        raise Failed(f"{error}; pass {options}" if options else str(error)) from error


def _values(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} must be NAME=VALUE", param_hint="--set")
    return dict(pair.split("=", 1) for pair in pairs)
