"""Show the video that a tutorial writes: sphinx-gallery itself knows figures alone."""

import shutil
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst


def show_video(block, block_vars, gallery_conf):
    """The WebP of ``video``, in a block that calls ``write_video``."""
    if "write_video(" not in block.content:
        return ""
    shown = Path(next(block_vars["image_path_iterator"])).with_suffix(".webp")
    shutil.copy(block_vars["example_globals"]["video"].with_suffix(".webp"), shown)
    return figure_rst([shown], gallery_conf["src_dir"], "the annotated video")
