"""What every figure and every report has to show."""

import re

from matplotlib.figure import Figure


def saved_figures(monkeypatch):
    """A list to which every figure that is saved is added."""
    figures = []
    original = Figure.savefig

    def savefig(self, *args, **kwargs):
        figures.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def check_figure(figure):
    """Each column and row of panels has its axis label, and what is drawn stands in the legend.

    No word is cut off at the figure's edge.
    """
    panels = [(ax, ax.get_subplotspec()) for ax in figure.axes]
    for ax, place in panels:
        if place is None:
            assert ax.get_ylabel(), "a colour bar says what it shows"
            continue
        column = [other.rowspan.start for _, other in panels if other and shares(place, other)]
        if place.rowspan.start == max(column):
            assert ax.get_xlabel(), f"the column of {ax.get_title()!r} has no label"
        if place.colspan.start == 0:
            assert ax.get_ylabel(), f"the row of {ax.get_title()!r} has no label"
        drawn = [*ax.get_lines(), *ax.collections, *ax.containers]
        named = {item.get_label() for item in drawn if not item.get_label().startswith("_")}
        assert named <= set(legend_of(figure)), f"{ax.get_title()!r} draws {named}"
        words = [ax.get_title(), ax.get_xlabel(), ax.get_ylabel(), *named]
        words += [label.get_text() for label in (*ax.get_xticklabels(), *ax.get_yticklabels())]
        unreadable = [text for text in words if re.search(r"\b(nan|inf|None)\b", text)]
        assert not unreadable, unreadable
    figure.draw_without_rendering()
    whole = figure.bbox.padded(2)
    words = [text for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    for text in (*words, *figure.texts, *(t for box in figure.legends for t in box.get_texts())):
        edges = text.get_window_extent()
        inside = whole.contains(*edges.min) and whole.contains(*edges.max)
        assert inside or not text.get_text(), f"{text.get_text()!r} is cut off"
    assert len(set(legend_of(figure))) == len(legend_of(figure))


def shares(place, other):
    return place.colspan.start == other.colspan.start


def check_page(text, folder=None):
    """No number that is none, no raw Python; every image of the folder is shown.

    Args:
        text: the page, in Markdown.
        folder: where it lies; its images and videos have to be in the page, and only those.
    """
    assert not re.search(r"\b(?:(?i:nan|inf)|None|True|False)\b", text), text
    assert not re.search(r"""[{\[(]['"]|\b\d{4,}\.\d""", text), text
    columns = [line.count("|") for line in text.replace("\\|", "").splitlines() if "|" in line]
    assert all(count > 1 for count in columns)
    if folder is not None:
        shown = set(re.findall(r"\]\(([^)]+)\)", text))
        there = {*folder.glob("*.png"), *folder.glob("videos/*")}
        assert shown == {path.relative_to(folder).as_posix() for path in there}
