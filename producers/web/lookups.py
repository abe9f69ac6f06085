"""Finds the row that the path of a request refers to. Each function raises NotFound if there is none."""

from uuid import UUID

from coupons.database import Connection
from coupons.errors import Conflict
from coupons.store import groups, import_schedules, imports, lists, messages, sendout_views
from coupons.store.groups import Group
from coupons.store.import_schedules import ImportSchedule
from coupons.store.imports import ImportStatus
from coupons.store.lists import CouponList
from coupons.store.messages import Message
from coupons.store.sendout_views import Sendout
from producers.web.errors import NotFound


async def get_sendout(connection: Connection, sendout_id: UUID) -> Sendout:
    found = await sendout_views.find(connection, sendout_id)
    if found is None:
        raise NotFound(f"there is no sendout {sendout_id}")
    return found


async def get_import(connection: Connection, import_id: UUID) -> ImportStatus:
    found = await imports.find(connection, import_id)
    if found is None:
        raise NotFound(f"there is no import {import_id}")
    return found


async def get_list(connection: Connection, name: str) -> CouponList:
    try:
        (found,) = await lists.get(connection, name)
    except Conflict as error:
        raise NotFound(str(error)) from None
    return found


async def get_schedule(connection: Connection, name: str) -> ImportSchedule:
    found = await import_schedules.find(connection, name)
    if found is None:
        raise NotFound(f"there is no recurring import {name}")
    return found


async def get_group(connection: Connection, name: str) -> Group:
    try:
        return await groups.get(connection, name)
    except Conflict as error:
        raise NotFound(str(error)) from None


async def get_message(connection: Connection, name: str) -> Message:
    try:
        return await messages.get(connection, name)
    except Conflict as error:
        raise NotFound(str(error)) from None
