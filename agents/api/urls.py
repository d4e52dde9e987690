"""/api/: tools for agents, doors for shims, and the schema of both."""

from __future__ import annotations

from django.urls import path, re_path
from drf_spectacular.views import SpectacularAPIView

from agents.api import schema, toolset, views  # noqa: F401 - tools register on import

urlpatterns = [
    path("tools", views.ToolsView.as_view(), name="tools"),
    path("tools/<str:name>", views.ToolView.as_view(), name="tool"),
    path("runs/<str:run_id>/claim", views.ClaimView.as_view(), name="run-claim"),
    path("runs/<str:run_id>/heartbeat", views.HeartbeatView.as_view(), name="run-heartbeat"),
    path("runs/<str:run_id>/exit", views.ExitView.as_view(), name="run-exit"),
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"^.*$", views.UnknownView.as_view(), name="unknown"),
]
