"""The people's pages."""

from __future__ import annotations

from django.urls import path

from agents.models import Run
from beads.models import Bead, Convoy, Escalation, Town
from refinery.pages import mayor, views
from refinery.review import views as reviews

urlpatterns = [
    path("", views.towns, name="towns"),
    path("towns/<slug:slug>/", views.town, name="town"),
    path("towns/<slug:slug>/mayor/", mayor.show, name="mayor"),
    path("towns/<slug:slug>/mayor/ask/", mayor.ask, name="mayor-ask"),
    path("towns/<slug:slug>/usage.csv", views.usage_csv, name="usage-csv"),
    path("towns/<slug:key>/<str:verb>/", views.act, {"subject": Town}, name="town-act"),
    path("convoys/<str:key>/", views.convoy, name="convoy"),
    path("convoys/<str:key>/<str:verb>/", views.act, {"subject": Convoy}, name="convoy-act"),
    path("beads/<str:key>/", views.bead, name="bead"),
    path("beads/<str:key>/<str:verb>/", views.act, {"subject": Bead}, name="bead-act"),
    path("reviews/<str:key>/", reviews.review, name="review"),
    path("reviews/<str:key>/<str:verb>/", reviews.act, name="review-act"),
    path("queue/", views.queue, name="queue"),
    path("runs/<str:key>/", views.run, name="run"),
    path("runs/<str:key>/transcript.jsonl", views.output, {"name": "transcript"}, name="run-transcript"),
    path("runs/<str:key>/log.txt", views.output, {"name": "log"}, name="run-log"),
    path("runs/<str:key>/<str:verb>/", views.act, {"subject": Run}, name="run-act"),
    path("mail/", views.mail, name="mail"),
    path("account/", views.account, name="account"),
    path("escalations/<str:key>/<str:verb>/", views.act, {"subject": Escalation}, name="escalation-act"),
    path("events/", views.events, name="events-all"),
    path("events/<slug:slug>/", views.events, name="events"),
]
