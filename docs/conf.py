"""Sphinx: `nox -s docs` builds this with every warning as an error, from the installed package."""

from __future__ import annotations

import importlib.metadata
import typing
from typing import TYPE_CHECKING

from sphinx.ext.napoleon import Config, GoogleDocstring

# The signatures name types that are imported for type checkers only, and autodoc looks them up. Taking them in is safe:
# lint's "no cycles" counts these imports too.
typing.TYPE_CHECKING = True
import securesmtp  # noqa: E402 -- see above

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
# A table that a page includes is no page.
exclude_patterns = ["_build", "examples", "explanation/speed/*.md"]
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
# One page has every name in an order that says something.
html_use_index = False
html_domain_indices = False

# `Name` in a docstring is one of ours, and a dead one is an error.
default_role = "py:obj"
add_module_names = False
maximum_signature_line_length = 88
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

# The network is not asked: python.inv has the names of the standard library that are used here, as plain text.
intersphinx_mapping = {"python": ("https://docs.python.org/3", "python.inv")}


def resolve_public_name(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: TextElement
) -> Element | None:
    """Lead `securesmtp._values.Reply` to where `Reply` is described, and `Reply.code` to its class."""
    domain = environment.domains.python_domain
    page = node.get("refdoc", "")
    for name in reversed(node.get("reftarget", "").split(".")):
        for module in (securesmtp, securesmtp.errors):
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

    That extension also takes the words before a colon in an enum member's docstring for a type, hence not it itself.
    """
    if what != "attribute":
        # "Attributes:" as a list of fields: a dataclass's own fields would else be described twice.
        config = Config(napoleon_use_ivar=True)
        lines[:] = GoogleDocstring(lines, config, app, what, name, thing, options).lines()


def leave_out_how_errors_are_made(_: Sphinx, what: str, *__: object) -> tuple[str, None] | None:
    """An error is caught by who reads the page, and raised by the library alone."""
    return ("", None) if what == "exception" else None


def leave_out_private_bases(_: Sphinx, __: str, ___: object, ____: object, bases: list[type]) -> None:
    """What a private base class gives stands with the class itself."""
    bases[:] = [base for base in bases if not base.__module__.startswith("securesmtp._")]


def setup(app: Sphinx) -> None:
    """Register what stands above."""
    app.connect("autodoc-process-signature", leave_out_how_errors_are_made)
    app.connect("autodoc-process-bases", leave_out_private_bases)
    app.connect("autodoc-process-docstring", read_google_sections)
    app.connect("missing-reference", resolve_public_name)
