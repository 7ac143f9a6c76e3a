"""Sphinx builds the documentation: ``make docs``. Nothing is fetched from elsewhere, and warnings are errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))
# the tutorials run on phantoms, with a cache of their own, whatever this machine has
os.environ.pop("BRAINSTAGE_DATA", None)
os.environ["BRAINSTAGE_CACHE"] = str(DOCS / "_build" / "cache")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import brainstage  # noqa: E402
from brainstage.core.links import DOCS_URL, PROJECT_URL  # noqa: E402

project = "brainstage"
author = "The brainstage developers"
project_copyright = author
version = release = brainstage.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "reference_pages",
    "self_contained",
]
exclude_patterns = ["_build", "examples", "tutorials/*.ipynb", "tutorials/*.py", "tutorials/*.md5"]
suppress_warnings = ["config.cache"]  # gallery settings hold functions
nitpicky = True
# other libraries are described elsewhere, and what is not public may be named in a docstring
nitpick_ignore_regex = [("py:.*", r"(?!brainstage\.\w+$).*")]

myst_enable_extensions = ["deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 4

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "tutorials",
    "filename_pattern": r".*\.py$",
    "within_subsection_order": "reference_pages.tutorial_order",
    "plot_gallery": True,
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,  # its page loads scripts from elsewhere
    "show_signature": False,
    "min_reported_time": 1,
    "first_notebook_cell": '# pip install "brainstage[all]"\n%matplotlib inline',
    "reset_modules": ("matplotlib",),
    "thumbnail_size": (420, 280),
}

html_theme = "furo"
html_title = "brainstage"
html_baseurl = DOCS_URL
html_static_path = ["_static"]
html_css_files = ["brainstage.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options: dict[str, Any] = {
    "source_repository": PROJECT_URL,
    "source_branch": "main",
    "source_directory": "docs/",
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#2a5d84", "color-brand-content": "#2a5d84"},
    "dark_css_variables": {"color-brand-primary": "#8cc0e8", "color-brand-content": "#8cc0e8"},
}
