"""What all tests share: each process of a test computes in one thread."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # programs that tests start inherit it

import torch

torch.set_num_threads(1)  # tensors this small are slower with more, much so where cores are shared
