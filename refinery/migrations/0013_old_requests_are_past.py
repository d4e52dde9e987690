"""What people asked for of a head that has been replaced was given to an agent then: it is not asked for again."""

from django.db import migrations

_PAST = """
update {table} said set task_id = said.entry_id from refinery_reviewentry entry
where entry.bead_id = said.entry_id and entry.head_sha <> said.head_sha{more}
"""


class Migration(migrations.Migration):
    dependencies = [("refinery", "0012_words_passed_on")]

    operations = [
        migrations.RunSQL(
            _PAST.format(table="refinery_verdict", more=" and said.run_id is null and decision = 'request_changes'"),
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(_PAST.format(table="refinery_reviewcomment", more=""), migrations.RunSQL.noop),
    ]
