"""torch.distributed's gloo all-reduce over loopback: one process per learner, the slowest one's time."""

import os
import resource
import socket
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def learner(rank, config, port, pipe):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    world = config["learners"]
    dist.init_process_group("gloo", rank=rank, world_size=world)
    gradient = torch.empty(config["elements"])
    pipe.send("ready")
    while pipe.recv():
        gradient.fill_(rank + 1)
        dist.barrier()
        cpu, wall = cpu_seconds(), time.perf_counter()
        dist.all_reduce(gradient)
        measured = time.perf_counter() - wall, cpu_seconds() - cpu
        assert torch.all(gradient == world * (world + 1) / 2)
        pipe.send(measured)


def make(config):
    context = mp.get_context("fork")  # nothing of torch has run yet
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes = []
    for rank in range(config["learners"]):
        ours, theirs = context.Pipe()
        context.Process(target=learner, args=(rank, config, port, theirs), daemon=True).start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()

    def repeat():
        for pipe in pipes:
            pipe.send(True)
        measured = [pipe.recv() for pipe in pipes]
        return {
            "units": 1,
            "seconds": max(seconds for seconds, _ in measured),
            "cpuSeconds": sum(cpu for _, cpu in measured),
        }

    return repeat, f"torch {torch.__version__} gloo"
