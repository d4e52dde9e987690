"""All settings, from the environment, in one file that fails loudly.

`DATABASE_URL` (unset: embedded PostgreSQL), `GASTOWN_HOME`, `GASTOWN_URL`, `GASTOWN_SECRET_KEY`, `GASTOWN_DEBUG`,
`GASTOWN_ALLOWED_HOSTS`, `GASTOWN_METRICS_TOKEN` (unset: one of its own in `GASTOWN_HOME/keys/metrics_token`),
`GASTOWN_LOG` (console or json), `GASTOWN_SESSION_DAYS` (14), `GASTOWN_HSTS_SECONDS` (30 days, with https only),
`GASTOWN_OWNER_CONFIG`, `GASTOWN_WEBHOOK_SECRET`.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import environ
import structlog

from gastown_site import database, home

BASE_DIR = Path(__file__).resolve().parent.parent
_inside = Path(__file__).resolve().parent
FILES = _inside if (_inside / "templates").is_dir() else BASE_DIR  # templates, static: inside the package in a wheel
env: Any = environ.Env()  # type: ignore[no-untyped-call]

DEBUG = env.bool("GASTOWN_DEBUG", default=False)
GASTOWN_HOME = str(home.path())
GASTOWN_URL = env.str("GASTOWN_URL", default="http://127.0.0.1:8000").rstrip("/")
GASTOWN_METRICS_TOKEN = env.str("GASTOWN_METRICS_TOKEN", default="") or home.metrics_token()
SECRET_KEY = env.str("GASTOWN_SECRET_KEY", default="") or home.secret_key()
GASTOWN_WEBHOOK_SECRET = env.str("GASTOWN_WEBHOOK_SECRET", default="")  # set: signs instead of each town's own
GASTOWN_OWNER_CONFIG = env.str("GASTOWN_OWNER_CONFIG", default="")
_mail = env.email_url("EMAIL_URL", default="consolemail://")  # e.g. smtp+tls://user:password@host:587
EMAIL_BACKEND, EMAIL_HOST, EMAIL_PORT = _mail["EMAIL_BACKEND"], _mail["EMAIL_HOST"], _mail["EMAIL_PORT"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail["EMAIL_HOST_USER"], _mail["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS, EMAIL_USE_SSL = bool(_mail.get("EMAIL_USE_TLS")), bool(_mail.get("EMAIL_USE_SSL"))
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = env.str("GASTOWN_MAIL_FROM", default="gastown@localhost")

_url = urlsplit(GASTOWN_URL)
ALLOWED_HOSTS = [
    *env.list("GASTOWN_ALLOWED_HOSTS", default=[]),
    _url.hostname or "localhost",
    "localhost",
    "127.0.0.1",
    "[::1]",
]
CSRF_TRUSTED_ORIGINS = [f"{_url.scheme}://{_url.netloc}"]

# Behind https (GASTOWN_URL says so) cookies never travel in the clear, and the proxy tells us by X-Forwarded-Proto.
# It must set that header itself, whatever the client sends, and append the client to X-Forwarded-For; and it must be
# the only way to our port.
BEHIND_PROXY = _https = _url.scheme == "https"
SESSION_COOKIE_NAME = "__Host-gastown" if _https else "gastown_session"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = env.int("GASTOWN_SESSION_DAYS", default=14) * 86400
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _https else None
SECURE_SSL_REDIRECT = _https
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]  # asked for from inside
SECURE_HSTS_SECONDS = env.int("GASTOWN_HSTS_SECONDS", default=30 * 86400) if _https else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "gastown_site.apps.SiteConfig",
    "refinery",
    "agents",
    "beads",
    "unfold.apps.BasicAppConfig",
    "gastown_site.apps.ConsoleConfig",  # django.contrib.admin with our site
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "django_q",
    "axes",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gastown_site.csp.ContentSecurityPolicy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
    "gastown_site.health.Away",
]
AUTHENTICATION_BACKENDS = ["gastown_site.lockout.Backend", "django.contrib.auth.backends.ModelBackend"]

# Who guesses passwords is locked out: gastown_site.lockout. Its rows go by themselves once they count no more.
AXES_HANDLER = "gastown_site.lockout.Handler"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = dt.timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"], "ip_address"]
AXES_LOCKOUT_CALLABLE = "gastown_site.lockout.refused"
AXES_CLIENT_IP_CALLABLE = "gastown_site.lockout.client_address"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # else whoever keeps guessing keeps the owner out for ever
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False  # `gastown person list` and `unlock`
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = ["username", "ip_address", "csrfmiddlewaretoken"]
ROOT_URLCONF = "gastown_site.urls"
ASGI_APPLICATION = "gastown_site.asgi.application"
WSGI_APPLICATION = "gastown_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [FILES / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "beads.people.for_templates",
            ],
        },
    }
]

# PostgreSQL only, by one lasting connection (the web process: by a pool).
_database = env.db_url_config(os.environ.get("DATABASE_URL") or database.url())
DATABASES = {
    "default": {
        **_database,
        "ENGINE": "django.db.backends.postgresql",
        "HOST": unquote(_database.get("HOST") or ""),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            **_database.get("OPTIONS", {}),
            "application_name": "gastown",
            "server_side_binding": True,
            "prepare_threshold": 3,
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = ["gastown_site.formats"]
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = FILES / "static"  # ours; the apps' own files come from the finders, so nothing is collected
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
PASSWORD_RESET_TIMEOUT = 86400  # of the first password's link
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

# The console's looks (django-unfold). Colours are in static/console/theme.css: see the README beside it.
UNFOLD = {
    "SITE_TITLE": "Gastown console",
    "SITE_HEADER": "Gastown",
    "SITE_SUBHEADER": "Ops console",
    "SITE_URL": "/",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/gastown/favicon.svg"}],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "SIDEBAR": {"navigation": "gastown_site.navigation.sidebar"},
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "agents.api.auth.RunTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "agents.api.views.exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Gastown tool calls",
    "DESCRIPTION": "What agents and shims call. Authenticate with the run's token.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "OAS_VERSION": "3.1.0",  # its schemas are JSON Schema, which is what pydantic writes
    "POSTPROCESSING_HOOKS": ["agents.api.schema.add_tools"],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
}

# django-q2 only triggers: the truth is in Effect and Run rows. See docs/adr/0004.
Q_CLUSTER = {
    "name": "gastown",
    "orm": "default",
    "broker_class": "gastown_site.parts.broker.NotifyBroker",
    "workers": 2,
    "timeout": 1500,  # packing a mirror takes long: see gitcmd.PACK_TIMEOUT
    "retry": 7200,
    "ack_failures": True,
    "max_attempts": 1,
    "catch_up": False,
    "poll": 1.0,
    "bulk": 1,
    "queue_limit": 6,
    "save_limit": 200,
    "label": "Task queue",
}

_renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(
    colors=sys.stderr.isatty(),
    exception_formatter=structlog.dev.plain_traceback,  # the default one prints locals: tokens, bodies
)
if env.str("GASTOWN_LOG", default="console") == "json":
    _renderer = structlog.processors.JSONRenderer()
_shared: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "structlog.stdlib.ProcessorFormatter",
            "processor": _renderer,
            "foreign_pre_chain": _shared,
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("GASTOWN_LOG_LEVEL", default="WARNING")},
    "loggers": {
        name: {"level": env.str("GASTOWN_LOG_LEVEL", default="INFO")}
        for name in ("beads", "agents", "refinery", "gastown_site")
    },
}
structlog.configure(
    processors=[*_shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
