"""Django's settings for the comparison with django-post-office; read in its own environment, by its own processes."""

import os
from urllib.parse import urlsplit

_database = urlsplit(os.environ["POST_OFFICE_DATABASE_URL"])
_host, _, _port = os.environ["POST_OFFICE_SMTP"].rpartition(":")

SECRET_KEY = "signs nothing"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "post_office"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database.path.lstrip("/"),
        "USER": _database.username,
        "PASSWORD": _database.password,
        "HOST": _database.hostname,
        "PORT": _database.port,
    }
}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]

EMAIL_HOST, EMAIL_PORT = _host, int(_port)
POST_OFFICE = {
    "BACKENDS": {"default": "django.core.mail.backends.smtp.EmailBackend"},
    # Its best of those tried (1 to 5 threads, batches of 100 to all): each batch begins with new processes, threads
    # and connections, and threads wait for each other's interpreter. Each mail's row has its state; no log beside it.
    "BATCH_SIZE": 10_000,
    "THREADS_PER_PROCESS": 1,
    "LOG_LEVEL": 1,
}
