"""A policy as one file that says how to build it: weights, spec, and what else it needs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor, nn

from rftf_torchrl.nets.finite_weights import check_finite_weights
from rftf_torchrl.nets.weights_fit import check_weights_fit
from rftf_torchrl.policies.spec import POLICIES, PolicySpecProtocol, spec_class
from rftf_torchrl.weights_file import made_by_entry, read_safetensors, write_safetensors

_FORMAT = "rftf_torchrl.policy.2"
_FILE = "file:"


def save_policy(
    policy: ProbabilisticTensorDictSequential,
    spec: PolicySpecProtocol,
    path: str | os.PathLike[str],
    *,
    made_by: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, spec and the spec's files to one safetensors file, atomically.

    A weight that has several names (an output layer tied to the embeddings, say) is stored once.

    Args:
        policy: a policy that ``spec`` describes.
        spec: see :class:`PolicySpecProtocol`.
        path: the file.
        made_by: settings that made it, kept in the file; see :func:`read_made_by`.

    Raises:
        FloatingPointError: when a weight is NaN or infinite.
    """
    weights: dict[str, Tensor] = dict(policy.state_dict())
    check_finite_weights(weights.items(), "the policy")
    files: Mapping[str, bytes] = getattr(spec, "files", {})
    for name, content in files.items():
        weights[_FILE + name] = torch.from_numpy(np.frombuffer(content, np.uint8).copy())
    metadata = {
        "format": _FORMAT,
        "kind": spec.kind,
        "policy": json.dumps(spec.to_dict()),
        **made_by_entry(made_by),
    }
    write_safetensors(path, weights, metadata)


def load_policy(
    path: str | os.PathLike[str], *, kind: str | None = None
) -> tuple[ProbabilisticTensorDictSequential, Any]:
    """Build the policy that :func:`save_policy` wrote, on the CPU; nothing else is read.

    Args:
        path: the file.
        kind: needed where the policy's kind is a ``"module:Class"``: that same string. A file alone
            does not make Python import a module that it names.

    Returns:
        The policy, and its spec.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, is no policy, or of another version; when its kind is
            unknown, or has to be named and is not; when its weights do not fit the policy that its
            spec describes. Every weight that is missing, unexpected or of another shape is listed.
        FloatingPointError: when a weight is NaN or infinite.
    """
    weights, metadata = read_safetensors(path)
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"{path} is not a policy: expected format {_FORMAT!r}, got {metadata.get('format')!r}"
        )
    described, stored = json.loads(metadata["policy"]), metadata["kind"]
    if stored != kind and stored not in POLICIES.places():
        raise ValueError(
            f"{path} is a policy of the kind {stored!r}, and to build it, code that the file names "
            f"would be imported and run: where you know that class, pass kind={stored!r} (in the "
            f"recipes policy.kind={stored})."
        )
    files = {
        name.removeprefix(_FILE): bytes(weights.pop(name).numpy())
        for name in sorted(weights)
        if name.startswith(_FILE)
    }
    if files:
        described["files"] = files
    try:
        spec = spec_class(stored).from_dict(described)
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"{path} describes its policy in a way that this version does not know ({error}): was "
            "it made by another one?"
        ) from error
    policy = spec.build()
    load_weights(policy, weights, str(path))
    check_finite_weights(weights.items(), str(path), "Load an earlier file.")
    return policy, spec


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a module that has exactly these.

    Args:
        module: where they go.
        weights: by name.
        source: where they are from, for the error.

    Raises:
        ValueError: listing every weight that is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    check_weights_fit({name: value.shape for name, value in own.items()}, weights, source)
    module.load_state_dict(dict(weights))
