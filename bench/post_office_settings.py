"""Django settings of the processes of django-post-office, with which our sending is compared."""

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
    # The fastest of 1 to 5 threads and batches of 100 mails up to all mails: each batch starts new processes, threads
    # and connections, and threads share the interpreter lock. At log level 1 it adds no log row per sent mail.
    "BATCH_SIZE": 10_000,
    "THREADS_PER_PROCESS": 1,
    "LOG_LEVEL": 1,
}
