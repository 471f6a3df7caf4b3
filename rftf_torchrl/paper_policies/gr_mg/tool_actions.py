"""From the actions that GR-MG predicts to those that CALVIN takes."""

from __future__ import annotations

from tensordict import TensorDictBase
from torchrl.data import Composite, Unbounded
from torchrl.envs.transforms import Transform

from rftf_torchrl import keys
from rftf_torchrl.functional.poses import tool_to_world
from rftf_torchrl.nets.entries import required, state_and_observation
from rftf_torchrl.paper_policies.blocks.inputs import robot_pose


class ToolFrameActions(Transform):
    """Turns a chunk in the gripper's frame into CALVIN's actions, on its way into the environment.

    The policy's own chunk stays in the data, so that its log-probability belongs to it; only the
    environment inside gets the other one. See :func:`rftf_torchrl.tool_to_world`.

    Source: github.com/bytedance/GR-MG, ``evaluate/wrapper/model_wrapper.py``.

    Args:
        wrap: whether changes of angles are brought into half a turn. The authors do not, and their
            simulator does not clip; :class:`rftf_torchrl.CalvinEnv` does.
    """

    def __init__(self, *, wrap: bool = True) -> None:
        super().__init__(in_keys_inv=[keys.CHUNK], out_keys_inv=[keys.CHUNK])
        self.wrap = wrap

    def _inv_call(self, tensordict: TensorDictBase) -> TensorDictBase:
        chunk = tensordict.get(keys.CHUNK, None)
        if chunk is None:
            return tensordict
        why = (
            " from the step's input, so the gripper's frame is not known: pass on all entries that "
            "the reset or the last step returned."
        )
        state = required(tensordict, keys.STATE, why)
        if chunk.shape[-1] != 7:
            raise ValueError(
                f"{keys.CHUNK!r} must hold actions of 7 numbers, got shape {tuple(chunk.shape)}."
            )
        pose, _ = robot_pose(state, 6)
        actions = tool_to_world(chunk, pose[..., 3:], wrap=self.wrap)
        return tensordict.set(keys.CHUNK, actions.to(chunk.dtype))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Leaves data as they are: their chunks are the policy's."""
        return tensordict

    def transform_input_spec(self, input_spec: Composite) -> Composite:
        """Lets the chunk be any number, and declares the robot's state, which it needs."""
        action = input_spec["full_action_spec"]
        chunk = action[keys.CHUNK]
        action[keys.CHUNK] = Unbounded(shape=chunk.shape, dtype=chunk.dtype, device=chunk.device)
        state, observed = state_and_observation(self, input_spec)
        state[keys.STATE] = observed[keys.STATE].clone()
        input_spec["full_state_spec"] = state
        return input_spec
