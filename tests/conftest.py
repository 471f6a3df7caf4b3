"""One thread per test process: on shared cores more of them make tests many times slower."""

import torch

torch.set_num_threads(1)
