"""What the ledger, its tables and the installation promise."""

from __future__ import annotations

from tests.mutations.mutation import RACES, Mutation

MUTATIONS = (
    Mutation(
        "a form that is sent twice asks the mayor twice",
        "refinery/decisions/mayor.py",
        "        if key and (known := inbox.payload_of(key)):\n",
        "        if key and (known := inbox.payload_of('')):\n",
        "tests/web/test_mayor.py -k sent_twice",
    ),
    Mutation(
        "a bead at work is changed under its agent",
        "beads/ledger/beads.py",
        "filter(pk=bead.pk, status=BeadStatus.OPEN).update(**said",
        "filter(pk=bead.pk).update(**said",
        "tests/db/test_plan_edits.py",
    ),
    Mutation(
        "whoever guesses passwords is never locked out",
        "gastown_site/lockout.py",
        "            super().authenticate(request, **credentials)\n",
        "            return\n",
        "tests/web/test_entrance.py -k s6",
    ),
    Mutation(
        "one address may guess at many names",
        "gastown_site/lockout.py",
        "    if address >= ADDRESS_LIMIT:\n",
        "    if False:\n",
        "tests/web/test_entrance.py -k s6",
    ),
    Mutation(
        "a database is left for an empty one where its way is closed",
        "gastown_site/pgplaces.py",
        '    if server_user() is None or (here / "PG_VERSION").exists():',
        "    if server_user() is None:",
        "tests/acceptance/test_private.py -k database",
    ),
    Mutation(
        "a release that comes twice is noted twice, in the second name",
        "beads/ledger/beads.py",
        "waits = Bead.objects.filter(pk=bead.pk, released_at=None)",
        "waits = Bead.objects.filter(pk=bead.pk)",
        "tests/web/test_filing.py",
    ),
    Mutation(
        "a bead's transition no longer compares its source status",
        "beads/ledger/beads.py",
        "Bead.objects.filter(pk=bead.pk, status=expect).update(**change) != 1",
        "Bead.objects.filter(pk=bead.pk).update(**change) != 1",
        RACES,
    ),
    Mutation(
        "an effect may be run by two at once",
        "beads/outbox.py",
        "    if not (row and row[0]):\n        yield None\n        return\n",
        "",
        "tests/db/test_safeguards.py",
    ),
    Mutation(
        "facts are applied twice",
        "beads/inbox.py",
        "Fact.objects.filter(pk__in=done).update(processed_at=now)",
        "pass",
        RACES,
    ),
)
