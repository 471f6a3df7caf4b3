"""``.npy`` files that hold Python objects, read without running what is inside them.

A pickle is a program: ``numpy.load(..., allow_pickle=True)`` runs whatever the file says. The
objects in CALVIN's files need four names, and none of them has to be the real one. Here each is a
replacement that only stores its arguments, and arrays are built from these with checks. The
real ``numpy.ndarray`` would not do, as a pickle can have it point at memory of the file's choice.
Python's unpickler in Python is used, not the one in C, which a few bytes can make ask for all the
memory there is.
"""

from __future__ import annotations

import pickle
import re
import struct
import tokenize
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from rftf_torchrl.data.format import DemonstrationError

PLAIN_DTYPE = re.compile(r"[biufcSU]\d+")
CORRUPT = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    pickle.UnpicklingError,
    RecursionError,
    struct.error,
    SyntaxError,
    tokenize.TokenError,
    TypeError,
    ValueError,
)
"""What reading a corrupt file can raise."""


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle that asks for more than arrays and plain containers."""


class _Allowed:
    """A name that a pickle may ask for. It can be called, and not be changed."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("it changes what it is read with")


class _DType:
    """What a pickle says of a dtype: its code, and the byte order that follows."""

    __slots__ = ("value",)

    def __init__(self, code: str, *_: Any) -> None:
        if code not in ("O", "O8") and not PLAIN_DTYPE.fullmatch(code):
            raise UnsafePickleError(f"it has an array of dtype {code!r}")
        self.value = np.dtype("O" if code[0] == "O" else code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.value.kind != "O":
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """What a pickle says of an array: version, shape, dtype, whether Fortran order, contents."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _scalar(dtype: _DType, content: bytes) -> np.generic:
    return cast(np.generic, np.frombuffer(content, dtype.value, count=1)[0])


def _not_called(*_: Any) -> None:
    raise UnsafePickleError("it makes an array out of memory")


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _not_called,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UnsafePickleError(f"it asks for {module}.{name}")
        return _Allowed(ALLOWED[module, name])

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("it asks for an object outside of the file")


def safe_load_npy(path: str | Path) -> Any:
    """Read a ``.npy`` file, also one with Python objects, without running code from it.

    Objects may be arrays of numbers, text or objects, NumPy scalars, dictionaries, lists, tuples,
    numbers, text, bytes and None. ``numpy.save`` of a dictionary makes such a file.

    Args:
        path: the file.

    Returns:
        The array, or where it has no dimension and holds one object, that object.

    Raises:
        FileNotFoundError: where there is no file.
        DemonstrationError: at a corrupt or truncated file, and at one that asks for anything else:
            what it asks for is named, not run.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "scene_info.npy")
        >>> np.save(path, {"calvin_scene_D": [64, 128]})
        >>> safe_load_npy(path)
        {'calvin_scene_D': [64, 128]}
    """
    path = Path(path)
    content = BytesIO(path.read_bytes())
    try:
        return _read(content)
    except UnsafePickleError as error:
        raise DemonstrationError(
            str(path),
            [
                f"refused: {error}. Only arrays and plain containers are read, because anything "
                "else could run code. Do not open the file with another reader unless you trust "
                "where it is from"
            ],
        ) from error
    except CORRUPT as error:
        raise DemonstrationError(
            str(path), [f"corrupt or truncated ({error}): copy or download it again"]
        ) from error


def _read(file: BytesIO) -> Any:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    if not dtype.hasobject:
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    array = _plain(_Unpickler(file).load(), {})
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise ValueError(f"the header says shape {shape}, the contents differ")
    return array.item() if array.ndim == 0 else array


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Replace the stand-ins inside a value; ``seen`` maps what was met to what it became."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        return value
    if id(value) in seen:
        if seen[id(value)] is seen:
            raise UnsafePickleError("it contains itself")
        return seen[id(value)]
    seen[id(value)] = seen
    result: Any
    if isinstance(value, _Array):
        result = _array(value, seen)
    elif type(value) is dict:
        result = {_plain(key, seen): _plain(entry, seen) for key, entry in value.items()}
    elif type(value) in (list, tuple):
        result = type(value)(_plain(entry, seen) for entry in value)
    else:
        raise UnsafePickleError(f"it has a bare {type(value).__name__.lstrip('_').lower()}")
    seen[id(value)] = result
    return result


def _array(stand_in: _Array, seen: dict[int, Any]) -> np.ndarray:
    _, shape, dtype, fortran, content = stand_in.state
    if dtype.value.kind == "O":
        flat = np.empty(len(content), dtype=object)
        for index, entry in enumerate(content):
            flat[index] = _plain(entry, seen)
    elif content:
        flat = np.frombuffer(content, dtype.value).copy()
    else:
        flat = np.empty(0, dtype.value)
    return flat.reshape(shape, order="F" if fortran else "C")
