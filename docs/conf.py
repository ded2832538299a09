"""Sphinx configuration. Nothing here needs the network."""

from importlib.metadata import version as installed_version

project = "distpert"
author = "distpert developers"
copyright = "2026, distpert developers"
release = installed_version("distpert")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
default_role = "py:obj"
smartquotes = False  # readers copy values such as "log"
exclude_patterns = ["_build", "generated/.*", "conftest.py"]

html_theme = "furo"
html_title = "distpert"
html_static_path = ["_static"]
html_css_files = ["distpert.css"]
html_show_sourcelink = False
html_copy_source = False

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
# Names that differ only in case would be one file on some systems.
autosummary_filename_map = {"distpert.Fit": "distpert.Fit-class"}
autodoc_typehints = "none"  # numpydoc shows the types
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": "object, tuple, Distribution, ABC"}
numpydoc_show_class_members = False
