"""The page behind `unsubscribe=`, with Flask: GET asks, POST acts (RFC 8058)."""

from collections.abc import Callable

from flask import Flask, abort, url_for
from itsdangerous import BadSignature, URLSafeSerializer

FORM = """<!doctype html><title>Unsubscribe</title>
<form method="post"><button>Unsubscribe from our newsletter</button></form>"""


def create_app(key: str, remove: Callable[[str], None]) -> Flask:
    """Make the application; *remove* takes an address off the list."""
    app = Flask(__name__)
    # The link itself says who unsubscribes, signed, so that nobody has to log in.
    signer = URLSafeSerializer(key, salt="unsubscribe")

    def read(token: str) -> str:
        try:
            address: str = signer.loads(token)
        except BadSignature:
            abort(404)
        return address

    @app.get("/unsubscribe/<token>")
    def ask(token: str) -> str:
        # Scanners follow every link, so this must change nothing.
        read(token)
        return FORM

    @app.post("/unsubscribe/<token>")
    def unsubscribe(token: str) -> str:
        # From the form, or from a mail program: no redirect, cookie or login.
        remove(read(token))
        return "You are unsubscribed."

    def link(address: str) -> str:
        return url_for(
            "ask", token=signer.dumps(address), _external=True, _scheme="https"
        )

    app.extensions["unsubscribe_link"] = link
    return app
