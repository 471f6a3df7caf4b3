"""Readers: episodes of frames and an instruction, from the forms in which people have them.

A reader is a function ``reader(path, *, size, fps, **options)`` that goes through the episodes of a
source: an iterator of :class:`~rftf_torchrl.VideoEpisode` and, for each that cannot be used, of
:class:`~rftf_torchrl.BadEpisode`. It reads tables and lists at once; the frames of an episode are
decoded when :meth:`~rftf_torchrl.VideoEpisode.read` is called, so that an episode that is not asked
for costs nothing, and one is in memory at a time.

``size`` (edge of the square image in pixels, None for the source's own size) and ``fps`` (frames
a second to keep, None for all) are how frames are to be decoded. Everything else is an option of
the kind, an argument by keyword with an annotation, which is checked.

A reader is found by a word: ``"videos"``, ``"lerobot"``, ``"hdf5"``, ``"calvin"``,
``"demonstrations"``, a name that an installed package offers in the group ``rftf_torchrl.readers``,
or ``"module:function"``.
:func:`~rftf_torchrl.video_episodes` finds the reader, checks its options and numbers the episodes.
:func:`~rftf_torchrl.import_videos` decodes a source once into a folder of demonstrations without
actions, which everything else reads.
"""
