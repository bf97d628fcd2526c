"""Configure Sphinx. `nox -s docs` builds the pages from the installed package, with every warning as an error."""

from __future__ import annotations

import importlib.metadata
import re
import typing
from typing import TYPE_CHECKING

import aiosmtpd.smtp  # noqa: F401 -- not while TYPE_CHECKING is set: they import what only type checkers have
import anyio.lowlevel  # noqa: F401
import psycopg  # noqa: F401
import redis  # noqa: F401
import trustme  # noqa: F401
from anyio.abc import ByteStream  # noqa: F401
from sphinx.ext.napoleon import Config, GoogleDocstring

# autodoc needs the types in the signatures, which are imported for type checkers only. Importing them is safe: the lint
# rule "no cycles" counts these imports too.
typing.TYPE_CHECKING = True
import securesmtp.testing  # noqa: E402 -- see above

typing.TYPE_CHECKING = False

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "securesmtp"
author = "The securesmtp authors"
copyright = f"2026, {author}"  # noqa: A001 -- Sphinx wants this name
release = version = importlib.metadata.version(project)

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
html_favicon = "_static/favicon.svg"
templates_path = ["_templates"]
html_show_sourcelink = False
# The reference is one page with every name, in an order that makes sense.
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


def setup(app: Sphinx) -> None:
    """Register the functions above."""
    app.connect("autodoc-process-signature", leave_out_how_errors_are_made)
    app.connect("autodoc-process-signature", leave_out_private_types)
    app.connect("autodoc-process-bases", leave_out_private_bases)
    app.connect("autodoc-process-docstring", read_google_sections)
    app.connect("missing-reference", resolve_public_name)
