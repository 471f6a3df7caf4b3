"""LIBERO's scripted expert, which sees everything: see :func:`expert.start_expert`."""
