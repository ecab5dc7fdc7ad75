"""Settings of Sphinx; `python -m docs.site` builds the site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vi_jax import __version__

project = "vi_jax"
author = "The vi_jax authors"
version = __version__
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.viewcode",
    "docs.site.reference",
    "docs.site.names",
    "docs.site.mathml",
]
exclude_patterns = ["_build", "site"]

# Markdown: $maths$, links to headings, lists of definitions
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "config.cache"]

# Python objects
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 70
toc_object_entries = False  # each has a heading
nitpicky = False  # docs.site.names reports what it cannot link

html_theme = "sphinx_book_theme"
html_title = "vi_jax"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
}
