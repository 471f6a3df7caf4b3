"""Files of the user's clone of calvin_env, and what to type where one is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from rftf_torchrl.calvin.install import CalvinNotInstalledError


def unseen_model(file: Path) -> str:
    """A URDF model without what it looks like; it moves and collides as before.

    Args:
        file: the model, whose meshes lie below its folder.

    Returns:
        The text of a file that may lie anywhere.

    Example:
        >>> import tempfile
        >>> text = '<robot name="r"><link name="l"><visual/><collision/></link></robot>'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "robot.urdf")
        ...     size = file.write_text(text)
        ...     unseen_model(file)
        '<robot name="r"><link name="l"><collision /></link></robot>'
    """
    model = ElementTree.parse(file).getroot()
    for link in model.iter("link"):
        for visual in link.findall("visual"):
            link.remove(visual)
    for mesh in model.iter("mesh"):
        mesh.set("filename", str(file.parent / mesh.attrib["filename"].removeprefix("package://")))
    return ElementTree.tostring(model, encoding="unicode")


def require_file(root: Path, file: Path) -> None:
    """Stop if a file of the clone is missing.

    Args:
        root: the folder of the clone.
        file: a path below it.

    Raises:
        CalvinNotInstalledError: where it is missing.

    Example:
        >>> try:
        ...     require_file(Path("env"), Path("env/conf/scene/calvin_scene_A.yaml"))
        ... except CalvinNotInstalledError as error:
        ...     print(error)
        calvin_env was found in env, but not its file 'conf/scene/calvin_scene_A.yaml'. Restore it:
            git -C env checkout -- conf/scene/calvin_scene_A.yaml
    """
    if not file.is_file():
        name = file.relative_to(root).as_posix()
        raise CalvinNotInstalledError(
            f"calvin_env was found in {root}, but not its file {name!r}. Restore it:\n"
            f"    git -C {root} checkout -- {name}"
        )


def require_models(root: Path, models: Iterable[str]) -> None:
    """Stop if a model or a mesh is missing, which PyBullet would leave out silently.

    Args:
        root: the folder of the clone.
        models: URDF files below its ``data``.

    Raises:
        CalvinNotInstalledError: naming the first file that is missing.
        ValueError: where a model can't be read.
    """
    for model in models:
        file = root / "data" / model
        require_file(root, file)
        try:
            meshes = ElementTree.parse(file).iter("mesh")
        except ElementTree.ParseError as error:
            raise ValueError(f"{file} is damaged ({error}): restore calvin_env's own") from error
        for name in sorted({mesh.attrib["filename"] for mesh in meshes}):
            if "://" not in name:
                require_file(root, Path(file.parent, name).resolve())
