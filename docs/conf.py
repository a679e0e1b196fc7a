"""Sphinx settings of the documentation site (`make docs`).

The source folder is the whole repository, so that links work here and on a code host.
"""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import metarl

project = "metarl"
author = "The metarl developers"
project_copyright = author
version = release = metarl.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "_api",
    "_docstrings",
    "_pages",
]
root_doc = "docs/index"
include_patterns = ["docs/**", "experiments/**", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "build", "dist", "runs", "metarl", "envs", "agents", "tests", "**/_*"]

myst_heading_anchors = 4

# Tutorials are notebooks, which are executed whenever they are read; an error ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_merge_streams = True
logging.getLogger("traitlets").setLevel(logging.WARNING)  # else each notebook is announced

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "member-order": "bysource",
}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
smartquotes_action = "D"  # dashes only, because quoted text is often code

# Other projects' documentation is not consulted, so that the build needs no network.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(torch|numpy|np|gymnasium|spaces|stable_baselines3|abc|collections|matplotlib|typing|pathlib|os)\..*",
    ),
    ("py:exc", r"(ResetNeeded|InvalidAction)"),  # Gymnasium's
    ("py:exc", r"StoppedBySignal"),  # a SystemExit for the command line
    ("py:class", r"metarl\.ranks\..*"),  # not public
]

html_theme = "furo"
html_title = f"metarl {release}"
html_copy_source = False
html_show_sphinx = False
