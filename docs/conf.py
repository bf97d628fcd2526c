"""Sphinx: `nox -s docs` builds this with every warning as an error, from the installed package."""

from __future__ import annotations

import builtins
import importlib.metadata
import sys
from typing import TYPE_CHECKING

import securesmtp

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "securesmtp"
author = "The securesmtp authors"
copyright = f"2026, {author}"  # noqa: A001 -- Sphinx wants this name
release = version = importlib.metadata.version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"securesmtp {release}"

# `Name` in a docstring is one of ours, and a dead one is an error.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# "Attributes:" as a list of fields: the dataclass's own fields would else be described twice.
napoleon_use_ivar = True
python_use_unqualified_type_names = True

# The standard library's names have no page here (intersphinx would need the network); all others must.
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(sorted(sys.stdlib_module_names))})\..*"),
    ("py:.*", rf"({'|'.join(name for name in dir(builtins) if not name.startswith('_'))})"),
]


def resolve_public_name(
    app: Sphinx, environment: BuildEnvironment, node: pending_xref, content: TextElement
) -> Element | None:
    """Lead a reference to the private place of a name, `securesmtp._values.Reply`, to its public page."""
    name = node.get("reftarget", "").rpartition(".")[2]
    for module in (securesmtp, securesmtp.errors):
        if name in module.__all__:
            domain = environment.domains.python_domain
            page = node.get("refdoc", "")
            target = f"{module.__name__}.{name}"
            return domain.resolve_xref(environment, page, app.builder, "obj", target, node, content)
    return None


def setup(app: Sphinx) -> None:
    """Register what stands above."""
    app.connect("missing-reference", resolve_public_name)
