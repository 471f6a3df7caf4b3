"""What there is to see of a state, for networks that are built for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ObservationSizes:
    """Sizes of the observations of a run.

    Attributes:
        image_size: edge of the image in pixels, ``("observation", "image")``; None where there
            is none.
        state_dim: numbers in the state, ``("observation", "state")``; None where nothing reads it.

    Example:
        >>> ObservationSizes(image_size=None, state_dim=7).state_dim
        7
    """

    image_size: int | None = None
    state_dim: int | None = None
