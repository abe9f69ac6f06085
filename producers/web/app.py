"""The ASGI application: routes, error handlers and the guard around them."""

from importlib.resources import files

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from coupons.database import Pool
from coupons.settings import Settings
from coupons.sources import SourceLimits
from producers.web.actions import Actions
from producers.web.api import Api
from producers.web.errors import HANDLERS
from producers.web.guard import Guard
from producers.web.health import Health
from producers.web.import_review import Reviewer
from producers.web.list_pages import ListPages
from producers.web.outbox_pages import OutboxPages
from producers.web.workers_view import WorkersView


def build(*, settings: Settings, pool: Pool) -> ASGIApp:
    app = Starlette(routes=routes(settings=settings, pool=pool), exception_handlers=HANDLERS)
    return Guard(app, token=settings.web_token.get_secret_value())


def routes(*, settings: Settings, pool: Pool) -> list[BaseRoute]:
    """The routes of the health checks, the API, the console and its static files."""
    broker_url = settings.broker_url.get_secret_value()
    max_bytes = settings.import_max_bytes
    limits = SourceLimits.from_settings(settings)
    actions = Actions(
        pool=pool, broker_url=broker_url, import_max_bytes=max_bytes, activated=settings.activated, limits=limits
    )
    reviewer = Reviewer(pool=pool, limits=limits, max_lines=settings.import_max_lines)
    workers = WorkersView(pool=pool, broker_url=broker_url)
    api = Api(pool=pool, actions=actions, workers=workers, import_max_bytes=max_bytes)
    return [
        *Health(pool=pool, broker_url=broker_url).routes(),
        Mount("/api", routes=api.routes()),
        Mount("/static", StaticFiles(directory=str(files("producers.web").joinpath("static")))),
        *OutboxPages(pool=pool, actions=actions, workers=workers).routes(),
        *ListPages(pool=pool, actions=actions, workers=workers, reviewer=reviewer, import_max_bytes=max_bytes).routes(),
        # for browsers: they have no bearer token
        Route("/imports/{id:uuid}/rejections.csv", api.download_rejected_lines),
    ]
