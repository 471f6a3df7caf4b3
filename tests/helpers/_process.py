"""What a test may not leave changed for the tests after it in the same process."""

import logging
import os
import signal
import sys

import torch


def state_of_the_process():
    root, pyplot = logging.getLogger(), sys.modules.get("matplotlib.pyplot")
    return {
        "root logger": (root.level, root.handlers[:]),
        "SIGTERM": signal.getsignal(signal.SIGTERM),
        "folder": os.getcwd(),
        "path": sys.path[:],
        "figures": pyplot.get_fignums() if pyplot else [],
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
