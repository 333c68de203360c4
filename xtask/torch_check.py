#!/usr/bin/env python3
"""Weights of PyTorch in `convzoo`, and back.

For each of torchvision's networks, random weights and random running statistics are saved as PyTorch saves them, in
both forms of a pickle, and as safetensors. `convzoo forward` must return what PyTorch does for inputs of several
shapes, and what `convzoo convert` writes must be PyTorch's to the last bit under `load_state_dict(strict=True)`.
"""
import argparse
import collections
import math
import pathlib
import subprocess
import sys
import tempfile
import time

import safetensors.torch
import torch
import torchvision

NETWORKS = """alexnet vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn googlenet inception_v3
    resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d
    wide_resnet50_2 wide_resnet101_2 densenet121 densenet161 densenet169 densenet201
    squeezenet1_0 squeezenet1_1""".split()
# Networks with gates, which would magnify the rounding of larger weights.
GATED = """mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3
    shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0
    efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6
    efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l
    regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf
    regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf regnet_y_8gf regnet_y_16gf regnet_y_32gf regnet_y_128gf
    convnext_tiny convnext_small convnext_base convnext_large""".split()
# Auxiliary classifiers, which a file may lack.
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
# Batch, height and width; odd sides leave poolings a remainder, and adaptive ones windows of several sizes.
SHAPES = [(1, 224, 224), (3, 97, 131), (2, 160, 113)]
TOLERANCE = 1e-4


def randomize(network, generator, gain):
    """Weights that keep a signal's size from layer to layer, and statistics that are not those of a fresh network."""
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            noise = 0.5 + noise.abs()
        elif tensor.dim() > 1:
            noise *= math.sqrt(gain / tensor[0].numel())
        elif name.endswith(".weight"):
            noise = 1 + 0.25 * noise
        else:
            noise *= 0.1
        tensor.copy_(noise)
    return state


def make(name, classes):
    options = {"aux_logits": True, "transform_input": False, "init_weights": False} if name in AUXILIARY else {}
    return getattr(torchvision.models, name)(weights=None, num_classes=classes, **options).eval()


def convzoo(binary, *arguments):
    result = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"convzoo {' '.join(map(str, arguments))}: {result.stderr.strip()}")


def check(binary, name, folder):
    """The largest relative error of a logit."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    classes = 1000 if name.startswith("squeezenet") else 37
    network = make(name, classes)
    state = randomize(network, generator, 1 if name in GATED else 2)

    pth, th, safe = folder / "weights.pth", folder / "weights.th", folder / "weights.safetensors"
    torch.save(state, pth)
    wrapped = {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(wrapped, th, _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, safe)
    runs = [(file, shape) for file in (pth, safe) for shape in SHAPES] + [(th, SHAPES[1])]
    if name in AUXILIARY:
        without = folder / "without.pth"
        torch.save({key: value for key, value in state.items() if not key.startswith(AUXILIARY[name])}, without)
        runs.append((without, SHAPES[1]))

    worst = 0.0
    answers = {}
    for file, (batch, height, width) in runs:
        if (batch, height, width) not in answers:
            images = torch.randn((batch, 3, height, width), generator=generator)
            with torch.no_grad():
                answers[batch, height, width] = (images, network(images))
        images, expected = answers[batch, height, width]
        given, answer = folder / "input.safetensors", folder / "output.safetensors"
        safetensors.torch.save_file({"input": images}, given)
        convzoo(binary, "forward", name, "--weights", file, "--input", given, "--out", answer)
        logits = safetensors.torch.load_file(answer)["logits"]
        assert logits.shape == expected.shape, f"{tuple(logits.shape)}, and PyTorch {tuple(expected.shape)}"
        error = ((logits - expected).abs().max() / expected.abs().max()).item()
        if not error <= TOLERANCE:
            raise RuntimeError(f"{file.suffix} on {batch}×3×{height}×{width}: off by {error:.1e}")
        worst = max(worst, error)

    for file in (pth, safe):
        converted = folder / "converted.safetensors"
        convzoo(binary, "convert", name, file, folder / "converted.bpk")
        convzoo(binary, "convert", name, folder / "converted.bpk", converted)
        fresh = make(name, classes)
        loaded = collections.OrderedDict(safetensors.torch.load_file(converted))
        # Without a version MNASNet refuses; safetensors has no place for it.
        loaded._metadata = {"": state._metadata[""]}
        fresh.load_state_dict(loaded, strict=True)
        for key, value in fresh.state_dict().items():
            same = key.endswith("num_batches_tracked") or torch.equal(value, state[key])
            assert same, f"{key} differs after `convert`"
    return worst


def main():
    parser = argparse.ArgumentParser(description="compare convzoo with PyTorch on weights that PyTorch saved")
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    unknown = set(arguments.models) - set(NETWORKS + GATED)
    if unknown:
        sys.exit(f"error: not of torchvision: {', '.join(sorted(unknown))}")

    failed = 0
    print(f"{'network':<20}{'largest error':>15}{'seconds':>10}")
    for name in arguments.models or NETWORKS + GATED:
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            try:
                verdict = f"{check(arguments.binary.resolve(), name, pathlib.Path(folder)):.1e}"
            except (RuntimeError, AssertionError) as error:
                verdict, failed = f"failed: {error}", failed + 1
        print(f"{name:<20}{verdict:>15}{time.time() - start:>10.1f}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
