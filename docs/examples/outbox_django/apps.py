from django.apps import AppConfig


class OutboxConfig(AppConfig):
    name = "outbox_django"
    default_auto_field = "django.db.models.BigAutoField"
