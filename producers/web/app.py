"""Everything that answers requests, put together."""

from importlib.resources import files

from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from coupons.database import Pool
from coupons.settings import Settings
from producers.web.actions import Desk
from producers.web.api import Api
from producers.web.errors import HANDLERS
from producers.web.guard import Guard
from producers.web.health import Health
from producers.web.list_pages import StockPages
from producers.web.outbox_pages import Pages


def build(*, settings: Settings, pool: Pool) -> ASGIApp:
    broker_url = settings.broker_url.get_secret_value()
    max_bytes = settings.import_max_bytes
    desk = Desk(pool=pool, broker_url=broker_url, import_max_bytes=max_bytes)
    api = Api(pool=pool, desk=desk, import_max_bytes=max_bytes)
    pages = Pages(pool=pool, desk=desk)
    stock = StockPages(pool=pool, desk=desk, import_max_bytes=max_bytes)
    health = Health(pool=pool, broker_url=broker_url)
    app = Starlette(
        routes=[
            *health.routes(),
            Mount("/api", routes=api.routes()),
            Mount("/static", StaticFiles(directory=str(files("producers.web").joinpath("static")))),
            *pages.routes(),
            *stock.routes(),
            Route("/imports/{id:uuid}/rejections.csv", api.rejections),  # for a browser, which holds no bearer token
        ],
        exception_handlers=HANDLERS,
    )
    return Guard(app, token=settings.web_token.get_secret_value())
