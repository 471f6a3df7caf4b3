"""CALVIN's on-disk format: written, read, and turned into demonstrations.

A dataset is a folder with ``training/`` and ``validation/``. In each:

- ``episode_0000064.npz`` and so on, one file per frame: ``actions`` (7; where the robot was one
  step later), ``rel_actions`` (7; see :func:`~rftf_torchrl.relative_action`), ``robot_obs`` (15)
  and ``scene_obs`` (24). With cameras also ``rgb_static``, ``rgb_gripper`` (uint8 [h, w, 3]),
  ``depth_static`` and ``depth_gripper`` (float32 [h, w], in metres).
- ``ep_start_end_ids.npy``: int [E, 2], first and last frame of each episode, inclusive;
  ``ep_lens.npy``: their lengths.
- ``scene_info.npy``: a dictionary from ``"calvin_scene_A"`` to its first and last frame.
- ``lang_annotations/auto_lang_ann.npy``: a dictionary with ``language`` (``ann``: instructions,
  ``task``: names, ``emb``: float32 [n, 1, 384]) and ``info`` (``indx``: start and end, exclusive).
- ``statistics.yaml`` and ``.hydra/merged_config.yaml``.
- ``interrupted.txt``, this library's own, where :class:`~rftf_torchrl.CalvinWriter` was
  interrupted: up to where all belongs together (:meth:`~rftf_torchrl.CalvinWriter.mark`), from
  where ``resume`` goes on.

CALVIN's own loader, ``calvin_agent.datasets.disk_dataset.DiskDataset``, reads what
:class:`~rftf_torchrl.CalvinWriter` writes with both cameras. Source: Mees et al. 2022, arXiv
2112.03227, and ``dataset/README.md`` of github.com/mees/calvin.
"""
