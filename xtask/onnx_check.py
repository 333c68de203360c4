#!/usr/bin/env python3
"""Networks of `convzoo` as ONNX files, in other programs and back.

Each network gets random weights and random running statistics, and `convzoo convert` writes it as ONNX, batch norms
folded and kept. ONNX's own checker must accept both files; ONNX Runtime and tract must return the logits of `convzoo
forward` for one image and for three; the folded file read as weights must give the same logits, the kept one every
tensor to the last bit. Some networks are quantized, too, on images of noise, and written in bytes: ONNX Runtime's logits
must be as near to those of the network in floats as `convzoo`'s int8 are. torchvision's networks are also written by
PyTorch's exporters, the files read as weights, and the logits compared with PyTorch's.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings
import zlib

import numpy as np
import onnx
import onnxruntime
import PIL.Image
import safetensors.numpy
import torch
import torchvision
import tract

from torch_check import AUXILIARY

# Relative to the largest logit.
TOLERANCE = 1e-4
# Variances of weights, times their inputs; the first with logits of a sensible size is taken. Deep residual networks
# without the statistics of a training would magnify what others keep.
GAINS = (2.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
# Networks that are written in bytes, too: curved activations, sums, norms before activations, branches, depthwise
# convolutions, gates, shuffled channels.
QUANTIZED = ("lenet5", "resnet20_cifar", "densenet40_k12", "squeezenet1_0", "squeezenet1_1", "shufflenet_v2_x0_5",
             "mobilenet_v2", "mobilenet_v3_small", "googlenet", "resnet18", "densenet121")
# How much more of quantization's noise others may have, by its root mean square. A byte that is rounded the other way is
# rounded again by all layers after it, so that two ways to the same bytes end as far apart as the noise is large.
NOISE = 1.5
# Images of noise that scales are found on, and logits compared.
CALIBRATED = 3
# Images of a folder that logits are compared on.
MOST_IMAGES = 1000
# Exporters of PyTorch, and how they are asked.
EXPORTERS = {
    "folded": {"dynamo": False},
    "unfolded": {"dynamo": False, "do_constant_folding": False},
    "norms kept": {"dynamo": False, "training": torch.onnx.TrainingMode.PRESERVE},
    "dynamo": {"dynamo": True, "verbose": False, "opset_version": 18},
}


def run(*command):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if result.returncode != 0:
        told = result.stderr.strip().splitlines() or ["no reason given"]
        raise RuntimeError(f"{' '.join(map(str, command[:3]))}: {told[0][:300]}")
    return result.stdout


def fill(shapes, gain, generator):
    """Weights that keep a signal's size, and statistics that are not those of a fresh network."""
    state = {}
    for name, shape in shapes.items():
        noise = generator.standard_normal(shape, dtype=np.float32)
        if name.endswith("running_var"):
            noise = 0.5 + np.abs(noise)
        elif name.endswith("layer_scale"):
            noise = 0.3 * noise
        elif len(shape) > 1:
            noise *= math.sqrt(gain / math.prod(shape[1:]))
        elif name.endswith(".weight"):
            noise = 1 + 0.25 * noise
        else:
            noise *= 0.1
        state[name] = noise.astype(np.float32)
    return state


def off(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def noise(found, expected):
    return float(np.sqrt(np.square(found - expected).mean()))


def prepared(path, how, channels):
    """An image as a network wants it, [channels, height, width]."""
    image, (height, width) = PIL.Image.open(path).convert("RGB"), how["size"]
    smooth = {"bilinear": PIL.Image.BILINEAR, "bicubic": PIL.Image.BICUBIC}[how["interpolation"]]
    if how["resize"]:
        scale = how["resize"] / min(image.size)
        image = image.resize([round(side * scale) for side in image.size], smooth)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    else:
        image = image.resize((width, height), smooth)
    pixels = (np.asarray(image, np.float32) / 255 - how["mean"]) / how["std"]
    return pixels.transpose(2, 0, 1)[:channels]


class Check:
    def __init__(self, convzoo, name, shape, folder):
        self.convzoo, self.name, self.shape, self.folder = convzoo, name, shape, folder
        self.errors = {}

    def note(self, what, found, expected):
        """Keeps the largest error of a kind, and stops at one beyond the tolerance."""
        assert found.shape == expected.shape, f"{what}: {found.shape}, expected {expected.shape}"
        error = off(found, expected)
        if not error <= TOLERANCE:
            raise RuntimeError(f"{what}: off by {error:.1e}")
        self.errors[what] = max(error, self.errors.get(what, 0.0))

    def forward(self, weights, images):
        given, answer = self.folder / "input.safetensors", self.folder / "output.safetensors"
        safetensors.numpy.save_file({"input": images}, given)
        run(self.convzoo, "forward", self.name, "--weights", weights, "--input", given, "--out", answer,
            "--device", "flex")
        return safetensors.numpy.load_file(answer)["logits"]

    def in_onnx_runtime(self, model, images):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        return [session.run(["logits"], {"input": batch})[0] for batch in images]

    def in_tract(self, model, images):
        """The logits, and how they were computed: tract 0.23 cannot optimize every network whose batch is left open."""
        try:
            network = tract.onnx().load(str(model)).into_model().into_runnable()
            return "tract", [network.run([batch])[0].to_numpy() for batch in images]
        except tract.TractError:
            return "tract, batch fixed", [self.in_tract_fixed(model, batch) for batch in images]

    def in_tract_fixed(self, model, batch):
        network = tract.onnx().load(str(model))
        network.set_input_fact(0, ",".join(map(str, batch.shape)) + ",f32")
        return network.into_model().into_runnable().run([batch])[0].to_numpy()

    def random(self, generator, images):
        """Weights with which the network's logits are of a sensible size, their file, and the logits."""
        fresh, weights = self.folder / "fresh.safetensors", self.folder / "weights.safetensors"
        run(self.convzoo, "convert", self.name, "random", fresh)
        with safetensors.safe_open(fresh, "np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        fresh.unlink()
        for gain in GAINS:
            state = fill(shapes, gain, generator)
            safetensors.numpy.save_file(state, weights)
            logits = self.forward(weights, images)
            if np.isfinite(logits).all() and 1e-3 < np.abs(logits).max() < 1e3:
                return state, weights, logits
        raise RuntimeError("no random weights give logits of a sensible size")

    def check(self, pytorch):
        generator = np.random.default_rng(zlib.crc32(self.name.encode()))
        three = generator.standard_normal((3, *self.shape), dtype=np.float32)
        batches = [three[:1], three]
        state, weights, logits = self.random(generator, three)

        folded, kept = self.folder / "folded.onnx", self.folder / "kept.onnx"
        run(self.convzoo, "convert", self.name, weights, folded)
        onnx.checker.check_model(str(folded), full_check=True)
        for what, answers in (("onnxruntime", self.in_onnx_runtime(folded, batches)), self.in_tract(folded, batches)):
            for answer in answers:
                self.note(what, answer, logits[: len(answer)])
        self.note("read", self.forward(folded, three[:1]), logits[:1])
        self.remove(folded)
        if self.name in QUANTIZED:
            self.check_on_noise(weights, generator)

        run(self.convzoo, "convert", self.name, weights, kept, "--keep-norms")
        onnx.checker.check_model(str(kept), full_check=True)
        self.note("onnxruntime", self.in_onnx_runtime(kept, batches[:1])[0], logits[:1])
        back = self.folder / "back.safetensors"
        run(self.convzoo, "convert", self.name, kept, back)
        with safetensors.safe_open(back, "np") as file:
            auxiliary = AUXILIARY.get(self.name, ())
            for name in file.keys():
                same = name.startswith(auxiliary) or np.array_equal(file.get_tensor(name), state[name])
                assert same, f"{name} differs after kept norms were read"
        back.unlink()
        self.remove(kept)

        if pytorch and hasattr(torchvision.models, self.name):
            self.check_exporters(state, three)

    def check_on_noise(self, weights, generator):
        """The same network in bytes, on images of noise."""
        _, height, width = self.shape
        folder = self.folder / "images"
        folder.mkdir()
        for number in range(CALIBRATED):
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
        self.check_quantized(weights, folder)

    def check_quantized(self, weights, folder):
        """Quantizes weights on the images of a folder, and compares their logits in bytes with those in floats."""
        int8, model = self.folder / "int8.safetensors", self.folder / "int8.onnx"
        run(self.convzoo, "quantize", self.name, "--weights", weights, "--calibrate", folder, "-o", int8)
        run(self.convzoo, "convert", self.name, int8, model)
        onnx.checker.check_model(str(model), full_check=True)

        about = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        paths = paths[:: math.ceil(len(paths) / MOST_IMAGES)]
        images = [prepared(path, json.loads(about["preprocessing"]), self.shape[0]) for path in paths]
        images = np.ascontiguousarray(np.stack(images), dtype=np.float32)
        floats, own = self.forward(weights, images), self.forward(int8, images)
        [found] = self.in_onnx_runtime(model, [images])
        ours, theirs = noise(own, floats), noise(found, floats)
        if not theirs <= NOISE * ours:
            raise RuntimeError(f"int8: noise of {theirs:.1e} where convzoo has {ours:.1e}")
        largest = float(np.abs(floats).max())
        self.errors["int8's noise"] = ours / largest
        self.errors["onnxruntime's"] = theirs / largest
        self.errors["between them"] = noise(found, own) / largest
        same = int((found.argmax(axis=1) == own.argmax(axis=1)).sum())
        self.remove(model)
        return f"{same} of {len(images)} classes are int8's"

    def check_exporters(self, state, images):
        options = {"aux_logits": True, "transform_input": False, "init_weights": False} if self.name in AUXILIARY else {}
        network = getattr(torchvision.models, self.name)(weights=None, **options).eval()
        for name, tensor in network.state_dict().items():
            if name in state:
                tensor.copy_(torch.from_numpy(state[name]))
        with torch.no_grad():
            expected = network(torch.from_numpy(images[:1])).numpy()
        for what, asked in EXPORTERS.items():
            file = self.folder / "pytorch.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(network, (torch.from_numpy(images[:1]),), str(file), **asked)
            self.note(f"PyTorch, {what}", self.forward(file, images[:1]), expected)
            self.remove(file)

    def remove(self, file):
        for path in (file, file.with_name(file.name + ".data")):
            path.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description="compare convzoo's networks with their ONNX files in other programs")
    parser.add_argument("convzoo", type=pathlib.Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--own", action="store_true", help="leave out the files of PyTorch's exporters")
    parser.add_argument("--weights", type=pathlib.Path, help="quantize these of one network instead, on --images")
    parser.add_argument("--images", type=pathlib.Path, metavar="DIR")
    arguments = parser.parse_intermixed_args()
    if bool(arguments.weights) != bool(arguments.images) or arguments.weights and len(arguments.models) != 1:
        sys.exit("error: --weights and --images go together, with one network")
    convzoo = arguments.convzoo.resolve()
    known = {network["name"]: network for network in json.loads(run(convzoo, "list", "--json"))}
    unknown = set(arguments.models) - set(known)
    if unknown:
        sys.exit(f"error: no such networks: {', '.join(sorted(unknown))}")

    failed = 0
    print(f"{'network':<26}{'seconds':>8}  largest errors, relative to the largest logit")
    # The small ones first.
    for name in arguments.models or sorted(known, key=lambda name: known[name]["params"]):
        start = time.time()
        with tempfile.TemporaryDirectory() as folder:
            check = Check(convzoo, name, known[name]["input"], pathlib.Path(folder))
            try:
                if arguments.weights:
                    verdict = check.check_quantized(arguments.weights, arguments.images)
                else:
                    check.check(not arguments.own)
                    verdict = ""
            except Exception as error:  # what other programs raise, they do not tell beforehand
                verdict, failed = f"failed: {str(error).splitlines()[0] if str(error) else repr(error)}", failed + 1
        errors = ", ".join(f"{what} {error:.0e}" for what, error in check.errors.items())
        print(f"{name:<26}{time.time() - start:>8.1f}  {errors} {verdict}", flush=True)
    print(f"{len(arguments.models or known)} networks, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
