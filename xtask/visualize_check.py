#!/usr/bin/env python3
"""What `convzoo visualize` and `convzoo embed` compute against PyTorch: Grad-CAM, saliency, guided Grad-CAM, features.

SqueezeNet 1.0 with ImageNet's weights, on three photographs. The network's input is taken from `convzoo`, so that
what is compared is not how the two decode and resize. With `--write FILE`, PyTorch's numbers, those of a deconvnet
projection among them, are kept for the tests.

A gradient jumps where rounding decides which of two cells a max pool takes, or on which side of zero the input of a
ReLU lies. So saliency has to agree, at each pixel, with one of PyTorch's results for images that differ by rounding;
how far those results lie apart is told beside it.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import safetensors.torch
import torch
import torchvision

PHOTOGRAPHS = ["n02105162_malinois.jpg", "n02793495_barn.jpg", "n02281406_sulphur_butterfly.jpg"]
LAYER = "features.10.expand3x3"
CHANNEL = 5
TOLERANCE = 1e-3
# As far, relatively, rounding moves the maps after some layers.
NUDGE = 1e-6
NUDGES = 24
# A prime, so that the numbers kept come from all rows and columns.
STEP = 1009


def convzoo(binary, *arguments):
    result = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"convzoo {' '.join(map(str, arguments))}: {result.stderr.strip()}")
    return json.loads(result.stdout)


class Rule(torch.autograd.Function):
    """ReLU with a backward pass that rectifies, and by the input's sign, too, where it is guided."""

    @staticmethod
    def forward(context, x, guided):
        context.guided = guided
        context.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return gradient.relu() * (x > 0) if context.guided else gradient.relu(), None


class Ruled(torch.nn.Module):
    def __init__(self, guided):
        super().__init__()
        self.guided = guided

    def forward(self, x):
        return Rule.apply(x, self.guided)


def network(weights, guided=None):
    """SqueezeNet, with a rule at each ReLU unless `guided` is None."""
    model = torchvision.models.squeezenet1_0(weights=None)
    model.load_state_dict(safetensors.torch.load_file(weights))
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.ReLU() if guided is None else Ruled(guided))
    return model.eval()


def input_gradient(model, image, answer):
    image = image.clone().requires_grad_(True)
    answer(model, image).backward()
    return image.grad[0]


def explain(weights, image):
    """What PyTorch says of an image, and the class and cell it says it of."""
    model = network(weights)
    features = model.features(image).detach().requires_grad_(True)
    logits = model.classifier(features).flatten(1)
    label = logits.argmax().item()
    logits[0, label].backward()
    cam = (features.detach() * features.grad.mean(dim=(2, 3), keepdim=True)).sum(1).relu()

    score = lambda model, image: model(image)[0, label]
    saliency = input_gradient(model, image, score).abs().amax(0)
    guided = input_gradient(network(weights, guided=True), image, score)
    wide = torch.nn.functional.interpolate(cam[None], image.shape[2:], mode="bilinear", align_corners=False)[0]

    def layer(model, image):
        kept = []
        handle = model.get_submodule(LAYER).register_forward_hook(lambda module, inputs, output: kept.append(output))
        model(image)
        handle.remove()
        return kept[0][0, CHANNEL]

    with torch.no_grad():
        maps = layer(model, image)
    row, column = divmod(maps.argmax().item(), maps.shape[1])
    projection = input_gradient(network(weights, guided=False), image, lambda m, x: layer(m, x)[row, column])
    answers = {
        "embed": features.mean(dim=(2, 3))[0],
        "gradcam": cam[0],
        "saliency": saliency,
        "guided-gradcam": guided * wide,
        "deconvnet": projection,
    }
    return label, [CHANNEL, row, column], {name: answer.detach().numpy() for name, answer in answers.items()}


def nudged_saliencies(weights, image, label):
    """PyTorch's saliency of the image as it is after some roundings."""
    model, generator = network(weights), torch.Generator().manual_seed(0)
    for _ in range(NUDGES):
        noise = 2 * torch.rand(image.shape, generator=generator) - 1
        gradient = input_gradient(model, image * (1 + NUDGE * noise), lambda model, image: model(image)[0, label])
        yield gradient.abs().amax(0).numpy()


def main():
    parser = argparse.ArgumentParser(description="compare `convzoo visualize` with PyTorch")
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("shared", type=pathlib.Path, help="the folder with the photographs and weights")
    parser.add_argument("--write", type=pathlib.Path, help="keep PyTorch's numbers in this file")
    arguments = parser.parse_args()
    weights = arguments.shared / "data/weights/squeezenet1_0-imagenet.safetensors"
    binary, failed, golden = arguments.binary.resolve(), False, {}

    print(f"{'photograph':<36}{'what':<16}{'largest error':>14}{'PyTorch moves':>15}")
    for photograph in PHOTOGRAPHS:
        path, ours = arguments.shared / "data/photos" / photograph, {}
        options = ["squeezenet1_0", path, "--weights", weights, "--device", "flex", "--json", "--out"]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            for what in ("gradcam", "saliency", "guided-gradcam"):
                told = convzoo(binary, "visualize", *options, folder, "--what", what, "--raw")
                label = told["images"][0]["explained"]["class"]
                ours[what] = numpy.load(folder / f"{path.stem}-{what}.npy")
            image = torch.from_numpy(numpy.load(folder / f"{path.stem}-input.npy"))
            convzoo(binary, "embed", *options, folder / "features.npy")
            ours["embed"] = numpy.load(folder / "features.npy")[0]
        own, cell, theirs = explain(weights, image)
        assert own == label, f"{photograph} is of class {label}, and {own} to PyTorch"
        golden[photograph] = {"class": label, "step": STEP, "layer": LAYER, "cell": cell}
        for what, answer in theirs.items():
            if what in ours:
                error, moves = numpy.abs(ours[what] - answer), ""
                if what == "saliency":
                    nudged = list(nudged_saliencies(weights, image, label))
                    error = numpy.min([error, *(numpy.abs(ours[what] - other) for other in nudged)], axis=0)
                    moves = f"{max(numpy.abs(other - answer).max() for other in nudged) / answer.max():.1e}"
                error = error.max() / numpy.abs(answer).max()
                failed |= not error <= TOLERANCE
                print(f"{photograph:<36}{what:<16}{error:>14.1e}{moves:>15}".rstrip(), flush=True)
            if what == "embed":
                continue
            sampled = answer.flatten() if what == "gradcam" else answer.flatten()[::STEP]
            golden[photograph][what] = {
                "values": [float(f"{value:.6g}") for value in sampled],
                "largest": float(numpy.abs(answer).max()),
                "sum": float(numpy.abs(answer.astype(numpy.float64)).sum()),
            }
    if arguments.write:
        lines = [f"{json.dumps(photograph)}: {json.dumps(numbers)}" for photograph, numbers in golden.items()]
        arguments.write.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
