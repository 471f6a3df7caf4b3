"""Sphinx configuration: sphinx-build docs docs/_build."""

import hashlib
import logging
import sys
import warnings
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
# What TorchRL says while the tutorials run is not about them; its import sets the level.
import torchrl  # noqa: F401

logging.getLogger("torchrl").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", category=DeprecationWarning)
warnings.filterwarnings("ignore", message="The name target_actor_network_params")

project = "rftf_torchrl"
author = "The rftf_torchrl authors"
copyright = "2026, The rftf_torchrl authors"
release = version = installed_version("rftf-torchrl")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "settings_tables",
    "readable_docstrings",
    "offline_math",
]
exclude_patterns = ["_build", "tutorials"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# References to names of ours must lead somewhere; some base classes and blocks have no page.
nitpicky = True
NO_PAGE = "|".join(
    rf"{place}\."
    for place in (
        *(r"paper_policies\.blocks", r"objectives\.cloning", r"objectives\.loss_keys"),
        *(r"nets\.observation_writer", r"envs\.decision", r"policies\.heads\.distributions"),
        r"values\.pretrained\.towers",
    )
)
nitpick_ignore_regex = [(r"py:.*", rf"(?!rftf_torchrl\.(?!{NO_PAGE})).*")]

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Sphinx-Gallery runs a tutorial again when its script has changed. It must run again as well when
# the library has, a dependency, or a file beside the script.
DOCS = Path(__file__).parent
RAN_WITH = DOCS / "auto_tutorials" / "ran_with.txt"


def digest() -> str:
    """Of all that decides what the tutorials give."""
    files = [DOCS.parent / "constraints.txt", *DOCS.glob("tutorials/*")]
    files += [*DOCS.parent.glob("rftf_torchrl/**/*.py"), *DOCS.parent.glob("recipes/**/*.*")]
    found = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file() and file.suffix != ".pyc"):
        found.update(f"{file.relative_to(DOCS.parent)}\n".encode() + file.read_bytes())
    return found.hexdigest()


def setup(app):
    def remember(app, error):
        if error is None and app.config.sphinx_gallery_conf["plot_gallery"]:
            RAN_WITH.write_text(digest(), encoding="utf-8")

    app.connect("build-finished", remember)


if not (RAN_WITH.is_file() and RAN_WITH.read_text(encoding="utf-8") == digest()):
    for script_digest in RAN_WITH.parent.glob("*.md5"):
        script_digest.unlink()

# A notebook of a tutorial starts with this cell, so that it runs on a hosted service as well.
NOTEBOOK_START = """\
# On a hosted service, this installs the library and what draws Meta-World's images.
%pip install -q 'rftf-torchrl[metaworld,video] @ git+https://github.com/rftf-torchrl/rftf_torchrl'
!apt-get -qq install libegl1 libgl1 libgl1-mesa-dri
%matplotlib inline"""

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "auto_tutorials",
    "within_subsection_order": "FileNameSortKey",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "capture_repr": (),
    "image_scrapers": ("matplotlib", "written_videos.show_video"),
    "download_all_examples": False,
    "matplotlib_animations": False,
    "min_reported_time": 0,
    "remove_config_comments": True,
    "first_notebook_cell": NOTEBOOK_START,
    "show_memory": False,
    "show_signature": False,
}

html_math_renderer = "mathml"
html_theme = "furo"
html_title = "rftf_torchrl"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {"navigation_with_keys": True}
