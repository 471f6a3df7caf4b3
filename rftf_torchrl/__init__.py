"""RFTF as TorchRL building blocks; every public name is imported from here.

The list of names is ``__init__.pyi``. A name is imported at its first use.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("rftf-torchrl")
