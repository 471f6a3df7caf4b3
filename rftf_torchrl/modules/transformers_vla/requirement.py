"""One error for whoever lacks the optional packages."""

from __future__ import annotations

from types import ModuleType

__all__ = ["require_transformers"]


def require_transformers() -> ModuleType:
    """Import ``transformers``.

    Returns:
        The package.

    Raises:
        ModuleNotFoundError: naming the extra to install.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this policy needs the package transformers: pip install 'rftf-torchrl[transformers]'"
        ) from error
    return transformers
