"""python peer.py BENCH '{"layers": 4, ...}': the peer's side of a benchmark (see side.py for the protocol)."""

import importlib
import json
import sys

import torch

from side import serve

bench, config = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(config["threads"])
torch.manual_seed(0)
repeat, version = importlib.import_module(bench).make(config)
serve(repeat, f"{version}, {config['threads']} threads")
