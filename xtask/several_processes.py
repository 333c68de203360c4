#!/usr/bin/env python3
"""What a training step costs over Burn's remote devices on loopback, beside one process.

    sudo unshare --net sh -c 'ip link set lo up && python xtask/several_processes.py target/debug/convzoo lenet5 resnet20_cifar'

Takes a convzoo with the feature `remote`, and Linux, whose kernel counts what processes compute and what loopback carries:
`unshare` gives it one that carries nothing else.
Each way of training sees the digits that are part of the program, `--batch` of them a step on all devices together. A row says
the milliseconds of a step, in the fastest of all epochs but the first; how long client and servers compute for it; and what
travels in both directions. An epoch's test and checkpoint are divided among its steps.
"""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile

TICKS = os.sysconf("SC_CLK_TCK")


def serve(binary, threads, kernels):
    """A server with so many threads, and its address."""
    command = [binary, "serve", "--device", "flex", "--kernels", kernels, "--listen", "127.0.0.1:0"]
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    return process, next(word for word in process.stderr.readline().split() if word.startswith("ws://"))


def computed(process):
    """Seconds that a process has computed."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def carried():
    """Bytes and packets that loopback has carried."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
    return [int(count) for count in next(line.split()[1:3] for line in lines if line.split()[0] == "lo:")]


def train(arguments, model, way, epochs):
    """Steps in an epoch, seconds of a step in each epoch; and of all epochs, seconds of client and servers, bytes and
    packets."""
    servers = [serve(arguments.binary, way["threads"], way["kernels"]) for _ in range(way["servers"])]
    devices = ",".join(address for _, address in servers) or "flex"
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder, "run")
            batch = arguments.batch // max(1, way["servers"])
            command = [arguments.binary, "train", model, "--recipe", "mnist", "--seed", "0", "--out", out]
            command += ["--epochs", str(epochs), "--batch", str(batch)]
            command += ["--device", devices, "--kernels", way["kernels"]]
            environment = os.environ | {"RAYON_NUM_THREADS": str(way["threads"])}
            before, times = carried(), os.times()
            served = sum(computed(process) for process, _ in servers)
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            served = sum(computed(process) for process, _ in servers) - served
            after, ended = carried(), os.times()
            client = ended.children_user + ended.children_system - times.children_user - times.children_system
            run = json.loads((out / "run.json").read_text())
            steps = -(-run["train_images"] // arguments.batch)
            seconds = [run["train_images"] / epoch["images_per_second"] / steps for epoch in run["epochs"]]
            return steps, seconds, [client, served, *(b - a for a, b in zip(before, after))]
    finally:
        for process, _ in servers:
            process.kill()
            process.wait()


WAYS = [
    {"name": "one process, two threads", "servers": 0, "threads": 2, "kernels": "on"},
    {"name": "the same with Burn's kernels", "servers": 0, "threads": 2, "kernels": "off"},
    {"name": "one server of two threads", "servers": 1, "threads": 2, "kernels": "on"},
    {"name": "two servers of one thread, half of the batch each", "servers": 2, "threads": 1, "kernels": "on"},
]


def measure(arguments, model):
    fastest, shares = [[] for _ in WAYS], [None] * len(WAYS)
    for _ in range(arguments.rounds):
        for at, way in enumerate(WAYS):
            # What comes before the first step is in both runs, and so not in their difference.
            _, _, short = train(arguments, model, way, 1)
            steps, seconds, long = train(arguments, model, way, 1 + arguments.epochs)
            fastest[at] += seconds[1:]
            shares[at] = [(b - a) / (steps * arguments.epochs) for a, b in zip(short, long)]
    print(f"{model}, {arguments.batch} images a step:\n")
    print("| | ms a step | client computes, ms | servers compute, ms | MB a step | packets a step |")
    print("| --- | --: | --: | --: | --: | --: |")
    for way, times, (client, served, sent, packets) in zip(WAYS, fastest, shares):
        remote = [f"{1e3 * served:.0f}", f"{sent / 1e6:.2f}", f"{packets:.0f}"] if way["servers"] else ["–"] * 3
        cells = [f"{1e3 * min(times):.0f}", f"{1e3 * client:.0f}", *remote]
        print(f"| {way['name']} | {' | '.join(cells)} |")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="a convzoo with the feature remote")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch", type=int, default=128, help="images of a step, of all devices together")
    parser.add_argument("--epochs", type=int, default=2, help="that are measured in each run, after a first one")
    parser.add_argument("--rounds", type=int, default=1, help="turns that all ways take")
    arguments = parser.parse_args()
    for model in arguments.models:
        measure(arguments, model)


if __name__ == "__main__":
    main()
