"""Django looks here for the commands of `manage.py`."""
