"""python peer.py BENCH '{"layers": 4, ...}': the peer's side of a benchmark (see side.py for the protocol)."""

import importlib
import json
import os
import sys

# Its best setting on a shared machine: waiting threads sleep instead of spinning.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from side import serve

bench, config = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(config["threads"])
torch.manual_seed(0)
repeat, version = importlib.import_module(bench).make(config)
serve(repeat, version)
