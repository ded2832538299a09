"""Sphinx configuration. Nothing here needs the network."""

from importlib.metadata import version as installed_version

project = "distpert"
author = "distpert developers"
copyright = "2026, distpert developers"
release = installed_version("distpert")
version = release

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
exclude_patterns = ["_build", "generated/.*", "jupyter_execute"]

html_theme = "pydata_sphinx_theme"
html_title = "distpert"
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2}

myst_enable_extensions = ["dollarmath", "colon_fence"]
nb_execution_mode = "off"  # notebooks are committed with their output

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc shows the types
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": "object, tuple, Distribution"}
numpydoc_show_class_members = False
