import django.utils.timezone
from django.db import migrations, models

from securesmtp.ledger import PostgreSQLLedger


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Mail",
            [
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True,
                        primary_key=True,
                        serialize=False,
                        verbose_name="ID",
                    ),
                ),
                ("key", models.CharField(max_length=200, unique=True)),
                ("written", models.DateTimeField(default=django.utils.timezone.now)),
                ("message", models.JSONField(null=True)),
                ("outcome", models.CharField(max_length=20, default="", db_index=True)),
                ("tries", models.PositiveIntegerField(default=0)),
                ("next_try", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.RunSQL(
            PostgreSQLLedger.schema(),
            reverse_sql="DROP TABLE securesmtp_ledger",
        ),
    ]
