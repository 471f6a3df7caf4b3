"""One thread per test process: on shared cores, two threads per process make tests many times slower."""

import torch

torch.set_num_threads(1)
