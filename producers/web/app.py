"""The ASGI application: routes, error handlers and the guard around them."""

from importlib.resources import files

from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from coupons.database import Pool
from coupons.settings import Settings
from producers.web.actions import Actions
from producers.web.api import Api
from producers.web.errors import HANDLERS
from producers.web.guard import Guard
from producers.web.health import Health
from producers.web.list_pages import ListPages
from producers.web.outbox_pages import OutboxPages


def build(*, settings: Settings, pool: Pool) -> ASGIApp:
    broker_url = settings.broker_url.get_secret_value()
    max_bytes = settings.import_max_bytes
    actions = Actions(pool=pool, broker_url=broker_url, import_max_bytes=max_bytes)
    api = Api(pool=pool, actions=actions, import_max_bytes=max_bytes)
    outbox_pages = OutboxPages(pool=pool, actions=actions)
    list_pages = ListPages(pool=pool, actions=actions, import_max_bytes=max_bytes)
    health = Health(pool=pool, broker_url=broker_url)
    app = Starlette(
        routes=[
            *health.routes(),
            Mount("/api", routes=api.routes()),
            Mount("/static", StaticFiles(directory=str(files("producers.web").joinpath("static")))),
            *outbox_pages.routes(),
            *list_pages.routes(),
            Route(
                "/imports/{id:uuid}/rejections.csv", api.download_rejected_lines
            ),  # for browsers: they have no bearer token
        ],
        exception_handlers=HANDLERS,
    )
    return Guard(app, token=settings.web_token.get_secret_value())
