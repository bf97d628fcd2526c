"""Compose an invoice from templates (Jinja2), with its CSS inlined (css-inline)."""

from email.message import EmailMessage
from pathlib import Path

from css_inline import CSSInliner
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from securesmtp import compose

FOLDER = Path(__file__).parent / "templates"
LOADER = FileSystemLoader(FOLDER)
# Escape in HTML only: a subject would say "Jeremy&#39;s". A missing value is an error.
PAGES = Environment(loader=LOADER, undefined=StrictUndefined, autoescape=True)
TEXTS = Environment(
    loader=LOADER,
    undefined=StrictUndefined,
    autoescape=False,  # noqa: S701 -- text, not HTML
)
# Keep @media, which cannot be inlined, and fetch nothing from the network.
INLINER = CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)


def invoice(
    name: str, address: str, number: str, total: str, pdf: bytes
) -> EmailMessage:
    values = {"name": name, "number": number, "total": total}
    page = PAGES.get_template("invoice.html").render(values)
    return compose(
        sender=("Example Ltd", "billing@example.com"),
        to=(name, address),
        subject=TEXTS.from_string("Invoice {{ number }} for {{ name }}").render(values),
        text=TEXTS.get_template("invoice.txt").render(values),
        html=INLINER.inline(page),
        inline={"logo": FOLDER / "logo.png"},
        attachments=(f"invoice-{number}.pdf", pdf),
    )
