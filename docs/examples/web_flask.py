"""
POST /send-email with Flask: `flask --app web_flask run`.

Other WSGI servers are given `web_flask:create_app()`.
"""

import atexit

from flask import Flask, request

from answers import BAD, Answer, send_email  # answers.py, beside this file
from configured import open_mailer, sender  # configured.py, beside this file


def create_app() -> Flask:
    """Make the application with one mailer, which its threads share."""
    app = Flask(__name__)
    mail_from = sender()
    mailer = open_mailer()
    # When the process ends: say goodbye to the mail server.
    atexit.register(mailer.close)

    @app.post("/send-email")
    def send() -> Answer:
        match request.get_json(silent=True):
            case {"to": str(to), "subject": str(subject), "body": str(body)}:
                return send_email(mailer, mail_from, to, subject, body)
        return BAD

    return app
