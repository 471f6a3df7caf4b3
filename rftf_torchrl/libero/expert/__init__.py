"""LIBERO's scripted expert, which sees everything.

``expert.start_expert(raw)`` is called once an episode, when the scene has settled. ``raw`` is
LIBERO's robosuite environment as it is then: ``raw.sim``, ``raw.parsed_problem["goal_state"]``,
``raw.object_states_dict``, ``raw.robots``, ... It gives a function without arguments, which gives
the action float64 [7] in [-1, 1] that is meant in the present state, and is called before each
step. The last number, the gripper, is exactly -1 (open) or 1 (close). The action that is carried
out may be another one, as noise is added to the first six. For a task that it does not do,
``start_expert`` raises a :class:`~rftf_torchrl.errors.UserError` that names the goal.
"""
