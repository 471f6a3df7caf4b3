import pickle
import re

import numpy as np
import pytest

from rftf_torchrl import DemonstrationError, safe_load_npy

CONTENT = {
    "language": {"ann": ["öffne", "b"], "emb": np.arange(6, dtype=np.float32).reshape(2, 1, 3)},
    "info": {"indx": [(1, 2), (np.int64(3), np.int64(4))], "episodes": [], "none": None},
    "mixed": (True, 1.5, b"\xff", np.array(["ab", "c"]), np.zeros((0, 1, 384)), np.array([True])),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big endian": np.array([1, 2], dtype=">i4"),
    "objects": np.array([{"a": 1}, [2]], dtype=object),
}


def save(path, array, protocol):
    """Write as ``numpy.save`` does, with any pickle protocol."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": array.shape}
        )
        pickle.dump(array, file, protocol=protocol)


def boxed(content):
    array = np.empty((), dtype=object)
    array[()] = content
    return array


def same(one, two):
    if isinstance(two, np.ndarray):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        return all(map(same, one.ravel().tolist(), two.ravel().tolist()))
    if isinstance(two, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in two)
    if isinstance(two, (list, tuple)):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_and_plain_containers_read_back(tmp_path, protocol):
    save(tmp_path / "a.npy", boxed(CONTENT), protocol)
    assert same(safe_load_npy(tmp_path / "a.npy"), CONTENT)


def test_files_of_older_numpy_read_back(tmp_path):
    save(tmp_path / "a.npy", boxed(CONTENT), 3)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"numpy._core.", b"numpy.core."))
    assert same(safe_load_npy(tmp_path / "a.npy"), CONTENT)


def test_what_numpy_saves_reads_back(tmp_path):
    np.save(tmp_path / "a.npy", CONTENT)
    assert same(safe_load_npy(tmp_path / "a.npy"), CONTENT)
    for array in (np.arange(6).reshape(3, 2), np.array(2.5), np.array([[1], None], dtype=object)):
        np.save(tmp_path / "b.npy", array)
        assert same(safe_load_npy(tmp_path / "b.npy"), array)


class Runs:
    """Unpickled by a careless reader, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').write('run')",)


def call(module, name, *args):
    """A pickle that calls ``module.name`` with arguments."""
    return b"c" + f"{module}\n{name}\n".encode() + pickle.dumps(args, 0)[:-1] + b"R."


ATTACKS = {
    "eval": (call("builtins", "eval", "1"), "it asks for builtins.eval"),
    "os.system": (call("os", "system", "true"), "it asks for os.system"),
    "numpy that runs": (call("numpy", "load", "a"), "it asks for numpy.load"),
    "a dotted name": (
        b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.data\x93.",
        "it asks for numpy.ndarray.data",
    ),
    "an array over memory": (
        b"cnumpy\nndarray\n((I1\ntcnumpy\ndtype\n(S'O8'\ntRS'AAAAAAAA'\ntR.",
        "it makes an array out of memory",
    ),
    "a structured dtype": (
        call("numpy", "dtype", "O,i8"),
        "it has an array of dtype 'O,i8'",
    ),
    "a change of the reader": (
        b"cnumpy\ndtype\n(N}S'value'\nI1\nstb.",
        "it changes what it is read with",
    ),
    "an outside object": (b"Pdisk\n.", "it asks for an object outside of the file"),
    "a bare dtype": (call("numpy", "dtype", "f8"), "it has a bare dtype"),
    "itself": (b"(lp0\ng0\na.", "it contains itself"),
}


def write_pickle(path, content):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        file.write(content)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_unsafe_pickle_is_refused(tmp_path, name):
    content, reason = ATTACKS[name]
    path = tmp_path / "a.npy"
    write_pickle(path, content)
    message = (
        f"{path}: 1 problem found:\n  - refused: {reason}. Only arrays and plain containers are "
        "read, because anything else could run code. Do not open the file with another reader "
        "unless you trust where it is from"
    )
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        safe_load_npy(path)


def test_a_malicious_pickle_does_not_run(tmp_path):
    np.save(tmp_path / "a.npy", boxed({"language": Runs(tmp_path / "was-run")}))
    with pytest.raises(DemonstrationError, match=r"it asks for builtins\.exec"):
        safe_load_npy(tmp_path / "a.npy")
    assert not (tmp_path / "was-run").exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert (tmp_path / "was-run").exists()


@pytest.mark.parametrize("content", [CONTENT, np.arange(100)], ids=["objects", "numbers"])
def test_a_truncated_file_is_one_clear_error(tmp_path, content):
    np.save(tmp_path / "whole.npy", content)
    whole = (tmp_path / "whole.npy").read_bytes()
    path = tmp_path / "a.npy"
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DemonstrationError, match=r"corrupt or truncated \(.*\): copy or down"):
            safe_load_npy(path)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
def test_flipped_bytes_never_raise_anything_else(tmp_path, seed):
    np.save(tmp_path / "whole.npy", CONTENT)
    whole = bytearray((tmp_path / "whole.npy").read_bytes())
    random = np.random.default_rng(seed)
    errors = 0
    for _ in range(150):
        broken = bytearray(whole)
        broken[random.integers(len(broken))] = random.integers(256)
        (tmp_path / "a.npy").write_bytes(broken)
        try:
            safe_load_npy(tmp_path / "a.npy")
        except DemonstrationError:
            errors += 1
    assert errors > 25


def test_a_few_bytes_cannot_ask_for_all_the_memory(tmp_path):
    """``r`` names place 4294967295 of a table, which the unpickler in C would allocate."""
    path = tmp_path / "a.npy"
    write_pickle(path, b"Nr\xff\xff\xff\xff.")
    message = (
        f"{path}: 1 problem found:\n  - corrupt or truncated (the header says shape (), the "
        "contents differ): copy or download it again"
    )
    with pytest.raises(DemonstrationError, match=f"^{re.escape(message)}$"):
        safe_load_npy(path)
