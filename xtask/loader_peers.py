#!/usr/bin/env python3
"""How fast photographs become inputs of 224 × 224, one core: `convzoo bench --data`, and torchvision on Pillow and its
transforms v2 on tensors, by turns. Files are in memory; what is timed is decoding alone, and decoding, cropping, resizing,
mirroring and normalizing, as an ImageNet recipe has it. Beside it, images of 32 × 32 in batches, augmented, on two threads.

    python xtask/loader_peers.py FOLDER --convzoo target/release/convzoo
"""
import argparse
import io
import json
import os
import pathlib
import statistics
import subprocess
import time

for pool in ["OMP_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ[pool] = "1"

import torch
import torchvision
from PIL import Image
from torchvision import transforms as v1
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

torch.set_num_threads(1)

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def pillow(transform):
    return lambda file: transform(Image.open(io.BytesIO(file)).convert("RGB"))


def tensors(transform):
    def run(file):
        return transform(decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), mode=ImageReadMode.RGB))

    return run


def works():
    tail = [v1.ToTensor(), v1.Normalize(MEAN, STD)]
    tail_v2 = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    train = [v1.RandomResizedCrop(224), v1.RandomHorizontalFlip()]
    train_v2 = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    measure, measure_v2 = [v1.Resize(256), v1.CenterCrop(224)], [v2.Resize(256, antialias=True), v2.CenterCrop(224)]
    return {
        ("Pillow", "decode"): pillow(lambda image: image),
        ("torchvision v2", "decode"): tensors(lambda image: image),
        ("Pillow", "train"): pillow(v1.Compose(train + tail)),
        ("torchvision v2", "train"): tensors(v2.Compose(train_v2 + tail_v2)),
        ("Pillow", "measure"): pillow(v1.Compose(measure + tail)),
        ("torchvision v2", "measure"): tensors(v2.Compose(measure_v2 + tail_v2)),
    }


def convzoo(program, folder, threads, seconds):
    command = [program, "bench", "--threads", str(threads), "--seconds", str(seconds), "--json", "--data", *folder]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


# What `bench --data` calls them.
KINDS = {"decode": "decode, to train", "train": "all, to train", "measure": "all, to measure"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--convzoo", required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    files = [path.read_bytes() for path in sorted(pathlib.Path(arguments.folder).rglob("*.jp*g"))]
    rates, small = {}, []
    for _ in range(arguments.turns):
        rows = convzoo(arguments.convzoo, [arguments.folder], 1, arguments.seconds)
        rate = {row["work"]: row["per_core"] for row in rows if row["images"] == "photographs"}
        for kind, work in KINDS.items():
            rates.setdefault(("convzoo", kind), []).append(rate[work])
        rows = convzoo(arguments.convzoo, [], 2, arguments.seconds)
        small += [row["images_per_second"] for row in rows if row["work"] == "batches of 128, to train"]
        for name, work in works().items():
            # As `bench --data`: the fastest reading of each image.
            fastest, begun = [float("inf")] * len(files), time.perf_counter()
            while time.perf_counter() - begun < arguments.seconds:
                for at, file in enumerate(files):
                    start = time.perf_counter()
                    work(file)
                    fastest[at] = min(fastest[at], time.perf_counter() - start)
            rates.setdefault(name, []).append(len(files) / sum(fastest))
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {Image.__version__}, "
          f"{len(files)} photographs, {arguments.turns} turns")
    print("| photographs, images a second of a core | convzoo | Pillow | torchvision v2 |\n| --- | --: | --: | --: |")
    for kind, work in KINDS.items():
        row = [statistics.median(rates[name, kind]) for name in ["convzoo", "Pillow", "torchvision v2"]]
        print(f"| {work} |", " ".join(f"{rate:.0f} |" for rate in row))
    print(f"32 × 32, in memory, batches of 128, to train: {statistics.median(small):,.0f} images a second on two threads")


if __name__ == "__main__":
    main()
