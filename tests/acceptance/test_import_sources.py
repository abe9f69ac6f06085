"""Sources of imports: each source delivers all its codes, or the import shows the reason."""

import gzip
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from anyio.from_thread import start_blocking_portal
from obstore import put
from obstore.store import S3Store

from sandbox.services import Services, Sink
from tests.acceptance.processes import FAILED
from tests.acceptance.system import Shop, codes
from tests.smtp_server import KEY_AND_CERTIFICATE, server_tls
from tests.sources_servers import BUCKET, Reply, object_store, redirect, web_server
from tests.waiting import eventually

LINES = 20_000
BUSY = Reply(status="503 Service Unavailable")


def txt(list_: str) -> bytes:
    """Return a text file with codes for this list."""
    return "".join(f"{code}\n" for code in codes(list_, LINES)).encode()


def csv(list_: str) -> bytes:
    """Return a csv file with codes for this list."""
    rows = (f"{n};{code}\r\n" for n, code in enumerate(codes(list_, LINES)))
    return "".join(["Nr;Gutschein-Code\r\n", *rows]).encode()


@dataclass(frozen=True, slots=True)
class World:
    """A shop whose worker can read from a host, a bucket and a folder. `replies` are the replies of the host."""

    shop: Shop
    host: str
    folder: str
    replies: dict[str, Reply | bytes]

    def url(self, source: str) -> str:
        return source.replace("https://host", self.host).replace("file://folder", f"file://{self.folder}")

    def added(self, list_: str, source: object, *options: object) -> int:
        """Import a source into a new list, and return the number of added codes."""
        self.shop.coupons("list", "create", list_)
        job = self.shop.coupons("import", source, "--list", list_, *options, "--wait", "--json").json
        assert job["rejected"] == 0
        assert self.shop.get_list(list_).available == job["added"]
        added: int = job["added"]
        return added


@pytest.fixture(scope="module")
def world(open_services: Services, open_sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("folder")
    certificate = folder / "localhost.pem"
    certificate.write_text(KEY_AND_CERTIFICATE)
    replies: dict[str, Reply | bytes] = {}
    shop = Shop(open_services, open_sink, tmp_path_factory.mktemp("shop"))
    with (
        pytest.MonkeyPatch.context() as environment,
        object_store() as store,
        start_blocking_portal() as portal,  # the test itself blocks while it waits for programs
        portal.wrap_async_context_manager(web_server(replies, tls=server_tls())) as server,
    ):
        environment.setenv("SSL_CERT_FILE", str(certificate))
        for name, value in credentials(store).items():
            environment.setenv(name, value)
        with shop.worker(
            import_hosts=server.host, import_private_hosts=True, import_buckets=BUCKET, import_folder=folder
        ):
            yield World(shop, server.url, str(folder), replies)


def credentials(store: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": store,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "reader",
        "AWS_SECRET_ACCESS_KEY": "no-secret",
    }


@pytest.mark.parametrize(
    ("list_", "source", "content"),
    [
        ("https", "https://host/spring.csv?token=hidden", csv("https")),
        ("https-gzip", "https://host/spring.txt.gz", gzip.compress(txt("https-gzip"))),
        ("s3", f"s3://{BUCKET}/2026/spring%20codes.csv", csv("s3")),
        ("file", "file://folder/spring.csv", csv("file")),
    ],
)
def test_a_worker_downloads_a_url(world: World, list_: str, source: str, content: bytes) -> None:
    """A worker reads plain and compressed files of an HTTPS host, and files of a bucket and of a folder."""
    path = source.partition("://")[2].partition("/")[2].partition("?")[0]
    match list_:
        case "s3":
            put(S3Store(BUCKET, client_options={"allow_http": True}), path.replace("%20", " "), content)
        case "file":
            (world.shop.file("spring.csv", content)).rename(f"{world.folder}/{path}")
        case _:
            world.replies[f"/{path}"] = Reply(content)
    assert world.added(list_, world.url(source)) == LINES
    assert "hidden" not in world.shop.coupons("list", "show", list_).out


def test_a_zip_is_decompressed_by_the_worker(world: World) -> None:
    """A zip file is uploaded unchanged. The import's log shows the name of the file in it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("export/spring.csv", csv("zip"))
    assert world.added("zip", world.shop.file("spring.zip", packed.getvalue())) == LINES
    assert "reading spring.csv as csv" in str(world.shop.rows("SELECT text FROM import_event"))
    assert world.shop.rows("SELECT FROM upload") == []


def test_a_redirect_to_another_host_is_not_followed(world: World) -> None:
    """The error contains the host that would have to be allowed, but not the query of the URL."""
    world.replies["/moved.txt"] = redirect("https://elsewhere.example/spring.txt?token=hidden")
    world.shop.coupons("list", "create", "moved")
    result = world.shop.coupons("import", world.url("https://host/moved.txt"), "--list", "moved", "--wait", code=FAILED)
    assert "elsewhere.example:443 is not an allowed host (COUPONS_IMPORT_HOSTS)" in result.err
    assert "hidden" not in result.err


def test_an_unavailable_host_is_retried(world: World) -> None:
    """The import shows the reason, waits, and finishes automatically."""
    world.replies["/soon.txt"] = BUSY
    world.shop.coupons("list", "create", "soon")
    import_id = world.shop.coupons("import", world.url("https://host/soon.txt"), "--list", "soon").out.strip()
    eventually(lambda: "retrying in" in world.shop.coupons("show", import_id).out, "a retry")
    world.replies["/soon.txt"] = Reply(txt("soon"))
    world.shop.becomes("finished", import_id)
    assert "localhost responded with 503" in world.shop.coupons("show", import_id).out
    assert world.shop.get_list("soon").available == LINES
