"""Where the Coupon Manager is not activated (COUPONS_ACTIVATED=false), coupon commands are refused.

These are imports of codes, new sendouts whose message prints coupons, and changes of lists and of such messages.
Groups, messages without coupons and their sendouts continue. A sendout that was accepted before keeps its promise: it
is prepared, sent, resumed and retried.
"""

from collections.abc import Collection

from coupons.commands import Command, ImportCoupons, StartSendout
from coupons.database import Connection
from coupons.errors import Conflict
from coupons.store import messages


class NotActivated(Conflict):
    """A command needs coupons, and the Coupon Manager is not activated on this system. It can be repeated later."""


def check_activated(*, activated: bool, what: str) -> None:
    """Raise NotActivated if the Coupon Manager is not activated."""
    if not activated:
        raise NotActivated(f"{what}: the Coupon Manager is not activated on this system (COUPONS_ACTIVATED)")


def check_message(name: str, lists: Collection[str], *, activated: bool) -> None:
    """Raise NotActivated if a message prints coupons of these lists, and the Coupon Manager is not activated."""
    if lists:
        check_activated(activated=activated, what=f"message {name} prints coupons of {', '.join(lists)}")


async def check_command(connection: Connection, command: Command, *, activated: bool) -> None:
    """Raise NotActivated if a new command needs coupons, and the Coupon Manager is not activated."""
    if activated:
        return
    match command:
        case ImportCoupons(list=str(name)):
            check_activated(activated=False, what=f"codes of list {name} cannot be imported")
        case StartSendout():
            message = await messages.get(connection, command.message)
            check_message(message.name, message.lists, activated=False)
