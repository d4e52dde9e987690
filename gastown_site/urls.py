"""Every route. Apart from `/healthz` nothing answers without authentication (see tests/web/test_doors.py)."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from agents.api import git_door
from gastown_site import entrance, health
from refinery.hosts.hook import hook

admin.autodiscover()
admin.site.index_title = "Ops console"

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", health.metrics, name="metrics"),
    path("api/", include("agents.api.urls")),
    path("git/<str:run_id>/<path:path>", git_door.door_view, name="git-door"),
    path("hooks/<slug:provider>/<slug:rig>/", hook, name="hook"),
    path("accounts/login/", entrance.Login.as_view(), name="login"),
    path("accounts/first/<str:uidb64>/<str:token>/", entrance.FirstPassword.as_view(), name="first-password"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("", include("refinery.urls")),
]
