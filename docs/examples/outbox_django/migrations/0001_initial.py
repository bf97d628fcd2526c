import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            "Mail",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=200, unique=True)),
                ("mail_from", models.CharField(max_length=320)),
                ("recipients", models.JSONField()),
                ("content", models.BinaryField(null=True)),
                ("outcome", models.CharField(max_length=20, default="", db_index=True)),
                ("tries", models.PositiveIntegerField(default=0)),
                ("next_try", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        )
    ]
