"""Demonstrations: written by a collector, validated when read, sampled as clips or action windows.

A set of demonstrations is one folder::

    <root>/demonstrations.json   what is in the set: tasks and episodes
    <root>/frames/               all frames of all episodes, one after another, as [N]
    <root>/digests.json          SHA-256 of every 4 MiB of these files; remove it to change them

``frames/`` is what :meth:`tensordict.TensorDict.memmap` writes, so
``TensorDict.load_memmap(root / "frames")`` alone reads it. Its entries:

========================== ============== ========= ===============================================
key                        shape          dtype     meaning
========================== ============== ========= ===============================================
("observation", "image")   [N, 3, h, w]   uint8     the camera image; optional, see below
("observation", "state")   [N, S]         float32   proprioception
("instruction", "tokens")  [N, L]         int64     the tokenised instruction
("instruction", "mask")    [N, L]         bool      True at a real token
"task_id"                  [N, 1]         int64     the id of a task in ``demonstrations.json``
"episode"                  [N, 1]         int64     the index of the frame's episode
"action"                   [N, A]         float32   the action taken after the frame, in -1 to 1
"action_is_pad"            [N, 1]         bool      True at an episode's last frame: no action
========================== ============== ========= ===============================================

State-only demonstrations have no image: every episode of a folder has it, or none has. A second
image, ``("observation", "wrist_image")``, is optional in the same way. What was imported from
videos has neither state nor action: ``state_dim`` and ``action_dim`` are null, and the entries of
the state and the action are not there.

``demonstrations.json`` holds:

- ``format_version`` (1), ``simulator``, ``state_dim``, ``action_dim``, ``action_repeat`` and
  ``num_frames``;
- ``complete``: False where the collection was interrupted;
- ``image_size``: [h, w], or null where there is no image;
- ``wrist_image_size``: the same for the wrist image; left out where there is none;
- ``tasks``: a list of ``{id, name, instruction}``;
- ``episodes``: a list of ``{index, task_id, start, stop, success, goal_seed, split, source}``. The
  frames of an episode are ``start`` to ``stop``, exclusive. ``success`` is null where it is
  unknown. Only imported episodes have ``source``, which says where they came from.
"""

from rftf_torchrl.former import former_names

__getattr__ = former_names(__name__)
