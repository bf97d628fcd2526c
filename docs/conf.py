"""Configure Sphinx. `nox -s docs` builds the pages from the installed package, with every warning as an error."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import typing
from html import escape
from pathlib import Path
from textwrap import indent, shorten
from types import FunctionType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiosmtpd.smtp  # noqa: F401 -- not while TYPE_CHECKING is set: they import what only type checkers have
import anyio.lowlevel  # noqa: F401
import psycopg  # noqa: F401
import redis  # noqa: F401
import trustme  # noqa: F401
from anyio.abc import ByteStream  # noqa: F401
from docutils import nodes
from sphinx import addnodes
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.docutils import SphinxDirective

# autodoc needs the types in the signatures, which are imported for type checkers only. Importing them is safe: the lint
# rule "no cycles" counts these imports too.
typing.TYPE_CHECKING = True
import securesmtp.testing  # noqa: E402 -- see above

typing.TYPE_CHECKING = False

if TYPE_CHECKING:
    from docutils.nodes import Element, Node, TextElement
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "securesmtp"
author = "The securesmtp authors"
copyright = f"2026, {author}"  # noqa: A001 -- Sphinx wants this name
release = version = importlib.metadata.version(project)
# "Documentation" and "Repository" in pyproject.toml are the one place for these addresses. Without them, pages have no
# canonical address, and no link to the source that they are made from.
ADDRESSES = dict(each.split(", ", 1) for each in importlib.metadata.metadata(project).get_all("Project-URL", []))
REPOSITORY = ADDRESSES.get("Repository", "")
html_baseurl = ADDRESSES.get("Documentation", "")

# What readers type into the search box, though a title has another word for it, or other pages have it more often.
SEARCH_WORDS = {
    "how-to/asyncio": ("asyncio", "trio", "async"),
    "how-to/celery": ("celery", "task"),
    "how-to/cron-script": ("cron job", "nightly", "exit status"),
    "how-to/delivery-reports": ("bounce", "dsn"),
    "how-to/development-inbox": ("mailhog", "mailpit"),
    "how-to/django": ("django",),
    "how-to/dkim": ("dkim",),
    "how-to/errors-and-retries": ("retry", "exception"),
    "how-to/html-mail": ("html", "attachment", "image", "calendar", "unsubscribe"),
    "how-to/many-messages": ("newsletter", "bulk"),
    "how-to/moving-from-smtplib": ("smtplib",),
    "how-to/oauth-authlib": ("oauth", "xoauth2"),
    "how-to/oauth-google": ("oauth", "gmail", "google"),
    "how-to/oauth-microsoft": ("oauth", "outlook", "office 365", "microsoft"),
    "how-to/own-ca": ("self-signed", "ca"),
    "how-to/proxy": ("proxy", "socks"),
    "how-to/send-from-a-shell": ("cron", "sendmail", "mutt", "php"),
    "how-to/settings": ("password", "environment", "docker", "kubernetes"),
    "how-to/smime": ("s/mime", "smime", "encrypt"),
    "how-to/test-your-program": ("pytest", "mock"),
    "how-to/watch-it": ("logging", "prometheus", "opentelemetry"),
    "how-to/web-frameworks": ("flask", "fastapi", "starlette", "litestar"),
    "reference/api/mailer": ("securemailer",),
    "troubleshooting": (
        "certificate",
        "certificate verify failed",
        "certificate_verify_failed",
        "corporate proxy",
        "unable to get local issuer certificate",
        "hostname mismatch",
        "whom to ask",
        "disable certificate verification",
        "error",
        "man in the middle",
        "security appliance",
        "tls inspection",
        "verify false",
        "zscaler",
    ),
}

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.intersphinx"]
# The tables in these folders are included by a page.
exclude_patterns = [
    "_build",
    "examples",
    "explanation/kills/*.md",
    "explanation/servers/*.md",
    "explanation/speed/*.md",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"securesmtp {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_logo = html_favicon = "_static/logo.svg"
html_theme_options: dict[str, Any] = {"top_of_page_buttons": []}
# This host is a placeholder.
if REPOSITORY and urlsplit(REPOSITORY).hostname != "example.com":
    html_theme_options = {
        "source_repository": REPOSITORY,
        "source_branch": "main",
        "source_directory": "docs/",
        "top_of_page_buttons": ["edit"],
        "footer_icons": [{"name": "Source code", "url": REPOSITORY, "html": "Source code", "class": ""}],
    }
templates_path = ["_templates"]
html_show_sourcelink = False
# The reference has every name, in an order that makes sense; the search finds the words of `index` directives.
html_use_index = False
html_domain_indices = False

# `Name` in a docstring links to a name of this library; a dead link is an error.
default_role = "py:obj"
add_module_names = False
maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

# Names of Django, Celery, OpenTelemetry and anyio, which are not linked.
nitpick_ignore = [
    ("py:exc", "ImproperlyConfigured"),
    ("py:class", "EmailMessage"),
    ("py:class", "Celery"),
    ("py:class", "AsyncResult"),
    ("py:class", "Message"),
    ("py:class", "anyio.abc.ByteStream"),
    ("py:class", "MeterProvider"),
    ("py:class", "TracerProvider"),
    # What both need of a mailer.
    ("py:class", "Mailer"),
    ("py:class", "securesmtp._queued.Sender"),
    ("py:exc", "kombu.exceptions.OperationalError"),
]

# No network: python.inv has the names of the standard library that are used here, as plain text.
intersphinx_mapping = {"python": ("https://docs.python.org/3", "python.inv")}


def resolve_public_name(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: TextElement
) -> Element | None:
    """Link `securesmtp._values.Reply` to the description of `Reply`, and `Reply.code` to that of its class."""
    domain = environment.domains.python_domain
    page = node.get("refdoc", "")
    for name in reversed(node.get("reftarget", "").split(".")):
        for module in (securesmtp, securesmtp.errors, securesmtp.testing):
            target = f"{module.__name__}.{name}"
            if name in module.__all__ and (
                found := domain.resolve_xref(environment, page, app.builder, "obj", target, node, content)
            ):
                return found
    return None


def read_google_sections(  # noqa: PLR0913, PLR0917 -- Sphinx calls it so
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """
    Turn "Args:" and the like into fields, as the extension napoleon does.

    Not with the extension itself: for an enum member or a property, it takes the words before a colon for a type.
    """
    if what not in {"attribute", "property"}:
        # "Attributes:" becomes a list of fields. Otherwise the fields of a dataclass would be described twice.
        config = Config(napoleon_use_ivar=True)
        lines[:] = GoogleDocstring(lines, config, app, what, name, thing, options).lines()


def leave_out_how_errors_are_made(_: Sphinx, what: str, *__: object) -> tuple[str, None] | None:
    """Leave out the signatures of errors: readers catch errors, and do not make them."""
    return ("", None) if what == "exception" else None


def leave_out_private_types(
    _: Sphinx, __: str, ___: str, ____: object, _____: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Leave out what type checkers are told about ``**options``: the docstring says which there are."""
    return signature and re.sub(r"(\*\*options): [\w.~]*Unpack\[[\w.~]+\]", r"\1", signature), returns


def leave_out_private_bases(_: Sphinx, __: str, ___: object, ____: object, bases: list[type]) -> None:
    """Leave out private base classes: their members are shown with the class itself."""
    bases[:] = [base for base in bases if not base.__module__.startswith("securesmtp._")]


class Methods(SphinxDirective):
    """`.. methods:: SecureMailer`: a table of what a class can do, each with the first sentences of its docstring."""

    required_arguments = 1

    def run(self) -> list[Node]:
        """Make it from the class, in the order of the source, so that it is never out of date."""
        module = self.env.ref_context["py:module"]
        owner = getattr(importlib.import_module(module), self.arguments[0])
        rows = ["* - Method\n  - What it does"]
        members = {name: member for each in owner.__mro__[:-1] for name, member in vars(each).items()}
        for name, member in members.items():
            if not name.startswith("_") and isinstance(member, (classmethod, property, staticmethod, FunctionType)):
                summary = " ".join((inspect.getdoc(getattr(owner, name)) or "").partition("\n\n")[0].split())
                rows.append(f"* - `{name} <{module}.{owner.__name__}.{name}>`\n  - {summary}")
        table = ".. list-table::\n   :header-rows: 1\n\n" + indent("\n".join(rows), "   ")
        # As in the class itself, `send` is its method.
        self.env.ref_context["py:class"] = owner.__name__
        try:
            return self.parse_text_to_nodes(table)
        finally:
            del self.env.ref_context["py:class"]


def describe_page(_: Sphinx, page: str, __: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Give search engines, and programs that show a link, the title of a page and its first paragraph."""
    if doctree is None:
        return
    texts = [each.astext() for each in doctree.findall(nodes.paragraph) if isinstance(each.parent, nodes.section)]
    title = nodes.unescape(re.sub("<[^>]*>", "", context["title"]))
    tags = {
        "og:type": "website",
        "og:site_name": project,
        "og:title": f"{title} - {project}" if page != "index" else project,
        "og:description": shorten(texts[0] if texts else title, 200, placeholder="…"),
    }
    if html_baseurl:
        tags["og:url"] = context["pageurl"]
        # `nox -s pictures` draws it.
        tags["og:image"] = f"{html_baseurl}_static/card.png"
    context["metatags"] += f'<meta name="description" content="{escape(tags["og:description"])}">\n'
    context["metatags"] += "".join(
        f'<meta property="{name}" content="{escape(text)}">\n' for name, text in tags.items()
    )


def add_search_words(app: Sphinx, doctree: nodes.document) -> None:
    """Give a page an entry in the index, which the search ranks above titles and text, for each of its words."""
    if words := SEARCH_WORDS.get(app.env.current_document.docname):
        entries = [("single", word, "", "main", None) for word in words]
        next(doctree.findall(nodes.section)).insert(1, addnodes.index(entries=entries, inline=False))


def setup(app: Sphinx) -> None:
    """Register what is above."""
    if gone := [page for page in SEARCH_WORDS if not Path(app.srcdir, f"{page}.md").is_file()]:
        raise FileNotFoundError(*gone)
    app.connect("doctree-read", add_search_words)
    app.add_directive("methods", Methods)
    app.connect("html-page-context", describe_page)
    app.connect("autodoc-process-signature", leave_out_how_errors_are_made)
    app.connect("autodoc-process-signature", leave_out_private_types)
    app.connect("autodoc-process-bases", leave_out_private_bases)
    app.connect("autodoc-process-docstring", read_google_sections)
    app.connect("missing-reference", resolve_public_name)
