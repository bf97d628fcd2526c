"""
POST /send-email with Flask: `flask --app web_flask run`.

For other WSGI servers, use `web_flask:create_app()`.
"""

import atexit

from flask import Flask, request
from werkzeug.exceptions import HTTPException

from answers import (  # answers.py, beside this file
    BAD,
    MAX_REQUEST,
    SENT,
    Answer,
    compose,
    explain,
    refusal,
    start_log,
)
from configured import open_mailer, sender  # configured.py, beside this file


def create_app() -> Flask:
    """Make the application with one mailer, which its threads share."""
    start_log()
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST
    mail_from = sender()
    mailer = open_mailer()
    # Close the connections properly when the process ends.
    atexit.register(mailer.close)

    @app.post("/send-email")
    def send() -> Answer:
        try:
            given = request.get_json(silent=True)
        except RecursionError:
            return BAD  # JSON that is nested too deep
        match given:
            case {"to": str(to), "subject": str(subject), "body": str(body)}:
                message = compose(mail_from, to, subject, body)
            case _:
                message = None
        if message is None:
            return BAD
        try:
            # To this one address only, whatever else the field may seem to contain.
            mailer.send(message, mail_from=mail_from, recipients=[to])
        except Exception as error:
            return explain(error, to)
        return SENT

    # 404, 405, and 500 after a bug, which Flask logs.
    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Answer:
        return refusal(error.code or 500, dict(error.get_headers()).get("Allow"))

    return app
