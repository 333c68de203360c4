#!/usr/bin/env python3
"""A worker of `convzoo bench` that measures PyTorch, ONNX Runtime, OpenVINO or tract.

It reads a job, one line of JSON, replies {"ready": …}, and then to each request {"times": …}, as
crates/convzoo/src/cli/bench/job.rs says: what convzoo's own workers do, so that `convzoo bench --peer` takes turns.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

LEARNING_RATE = 1e-4
MOMENTUM = 0.9
AUXILIARY_WEIGHT = 0.3
STEADY = 0.1
AUXILIARY = {"googlenet", "inception_v3"}
PRECISIONS = {"onnxruntime": ("f32", "int8"), "openvino": ("f32", "bf16", "int8"), "tract": ("f32",)}


def lenet5(channels, classes):
    """LeCun et al., 1998, as convzoo has it."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(channels, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, classes),
    )


def module(job):
    """The network as torchvision or timm has it, or cifar.py, weights at random."""
    import cifar
    import torchvision.models

    name, classes = job["model"], job["classes"]
    if name == "lenet5":
        return lenet5(job["input"][0], classes)
    if name in cifar.NETWORKS:
        return cifar.NETWORKS[name](classes)
    if name in torchvision.models.list_models(module=torchvision.models):
        training = job["mode"] == "train"
        options = {"aux_logits": training, "init_weights": False} if name in AUXILIARY else {}
        if name == "inception_v3":
            options["transform_input"] = False
        return getattr(torchvision.models, name)(weights=None, num_classes=classes, **options)
    import timm

    if name in timm.list_models():
        return timm.create_model(name, pretrained=False, num_classes=classes)
    raise ValueError(f"neither torchvision, timm nor cifar.py has {name}")


def torch_pass(job, device, compiled, tf32, channels_last):
    """One pass as PyTorch runs it, with the result read."""
    import torch

    torch.set_num_threads(job["threads"])
    torch.set_num_interop_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    types = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    if job["precision"] not in types:
        raise ValueError(f"PyTorch has no {job['precision']}")
    precision = types[job["precision"]]
    # Training is in mixed precision, whose parameters are in 32 bits.
    mixed = job["mode"] == "train" and precision != torch.float32
    order = torch.channels_last if channels_last else torch.contiguous_format
    kind = {"device": device, "dtype": torch.float32 if mixed else precision, "memory_format": order}
    network = module(job).to(**kind)
    images = torch.randn(job["batch"], *job["input"]).to(**kind)
    if job["mode"] == "infer":
        network.eval()
        run = torch.compile(network) if compiled else network

        def forward():
            with torch.inference_mode():
                return run(images).cpu()

        return forward
    network.train()
    run = torch.compile(network) if compiled else network
    targets = (torch.arange(job["batch"]) % job["classes"]).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    cross_entropy = torch.nn.functional.cross_entropy
    scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, dtype=precision if mixed else None, enabled=mixed):
            output = run(images)
            logits, *auxiliary = (output,) if torch.is_tensor(output) else output
            loss = cross_entropy(logits, targets)
            for other in auxiliary:
                loss = loss + AUXILIARY_WEIGHT * cross_entropy(other, targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss = loss.item()
        if device == "cuda":
            torch.cuda.synchronize()
        return loss

    return step


def made(job, step, path):
    """A file that `step` makes of a job in a process of its own, whose memory is not this one's."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, step, "--folder", path]
        result = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"cannot {step.replace('-', ' with ')}: {result.stderr.strip().splitlines()[-1]}")
    return path


def exported(job, folder, engine):
    """The network as an ONNX file; in int8 as the engine's own tool quantizes it."""
    shape = "x".join(map(str, (job["batch"], *job["input"])))
    path = made(job, "export", folder / f"{job['model']}-{shape}.onnx")
    if job["precision"] != "int8":
        return path
    suffix = ".int8.onnx" if engine == "onnxruntime" else ".int8.xml"
    return made(job, f"quantize-{engine}", path.with_suffix(suffix))


def export(job, path):
    import torch

    images = torch.randn(job["batch"], *job["input"])
    unfinished = path.with_suffix(".part")
    torch.onnx.export(module(job).eval(), images, unfinished, dynamo=False)
    unfinished.rename(path)


# Of random images, as convzoo's are in `bench`.
CALIBRATED = 8


def quantize_onnxruntime(job, path):
    """Static, in QDQ form, weights by output channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self, name):
            self.rest = iter([{name: images_for(job, ("int8",), seed)} for seed in range(CALIBRATED)])

        def get_next(self):
            return next(self.rest, None)

    import onnx

    source = path.with_name(path.name.removesuffix(".int8.onnx") + ".onnx")
    name = onnx.load(source, load_external_data=False).graph.input[0].name
    quantize_static(
        source, path, Images(name), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )


def quantize_openvino(job, path):
    """By NNCF, as OpenVINO's documentation has it."""
    import nncf
    import openvino

    source = path.with_name(path.name.removesuffix(".int8.xml") + ".onnx")
    images = nncf.Dataset([images_for(job, ("int8",), seed) for seed in range(CALIBRATED)])
    openvino.save_model(nncf.quantize(openvino.Core().read_model(source), images, subset_size=CALIBRATED), path)


def images_for(job, precisions=("f32",), seed=0):
    import numpy

    if job["mode"] != "infer" or job["precision"] not in precisions:
        raise ValueError("only infers, and in " + " and ".join(precisions))
    return numpy.random.default_rng(seed).standard_normal((job["batch"], *job["input"]), dtype=numpy.float32)


def onnxruntime_pass(job, path):
    import onnxruntime

    images = images_for(job, PRECISIONS["onnxruntime"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})


def openvino_pass(job, path):
    import openvino

    images = images_for(job, PRECISIONS["openvino"])
    options = {
        "INFERENCE_NUM_THREADS": job["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        # Its own choice is bfloat16 where the processor has it.
        "INFERENCE_PRECISION_HINT": "bf16" if job["precision"] == "bf16" else "f32",
    }
    request = openvino.Core().compile_model(openvino.Core().read_model(path), "CPU", options).create_infer_request()
    return lambda: request.infer([images])


def tract_pass(job, path):
    import tract

    images = images_for(job)
    # It computes on the thread that calls it, however many there are.
    model = tract.onnx().load(path).into_model().into_runnable()
    return lambda: model.run([images])[0].to_numpy()


def peak_rss_mib():
    try:
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(**reply):
    print(json.dumps(reply), flush=True)


def serve(make, job, start):
    def timed():
        begin = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - begin)

    run = make()
    load_ms = 1e3 * (time.perf_counter() - start)
    times = [timed()]
    while sum(times) < 1e3 * job["warm_up"] and not (len(times) > 2 and max(times[-3:]) < min(times[-3:]) * (1 + STEADY)):
        times.append(timed())
    typical = times[-1]
    say(ready={"load_ms": load_ms, "first_ms": times[0]})
    for line in sys.stdin:
        request = json.loads(line)
        if "run" not in request:
            say(profile={"layers": []})  # it tells no layers apart
            continue
        passes = int(min(max(1e3 * request["run"]["seconds"] / typical, 1), 1e4))
        # Another worker has had the caches since the last request.
        if passes > 2:
            run()
        times = [timed() for _ in range(passes)]
        typical = statistics.median(times)
        say(times={"ms": times, "peak_rss_mib": peak_rss_mib()})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    files = {"export": export, "quantize-onnxruntime": quantize_onnxruntime, "quantize-openvino": quantize_openvino}
    parser.add_argument("engine", choices=["pytorch", *PRECISIONS, *files])
    parser.add_argument("--device", default="cpu", help="PyTorch's")
    parser.add_argument("--compiled", action="store_true", help="torch.compile")
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's order of feature maps for convolutions")
    parser.add_argument("--memory", type=pathlib.Path, help="append what PyTorch held of a GPU's memory, a line of JSON")
    parser.add_argument("--tf32", action="store_true", help="let PyTorch multiply f32 in TF32")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("onnx"), help="where ONNX files are kept")
    arguments = parser.parse_args()
    job = json.loads(sys.stdin.readline())
    if arguments.engine in files:
        return files[arguments.engine](job, arguments.folder)
    try:
        if arguments.engine == "pytorch":
            import torchvision.models  # noqa: F401 -- before the clock starts, as a program starts once

            start = time.perf_counter()
            options = (arguments.device, arguments.compiled, arguments.tf32, arguments.channels_last)
            serve(lambda: torch_pass(job, *options), job, start)
            if arguments.memory and arguments.device == "cuda":
                import torch

                mib = {"allocated": torch.cuda.max_memory_allocated() >> 20, "reserved": torch.cuda.max_memory_reserved() >> 20}
                with arguments.memory.open("a") as file:
                    print(json.dumps(job | {"options": sys.argv[2:], "mib": mib}), file=file)
        else:
            images_for(job, PRECISIONS[arguments.engine])
            path = exported(job, arguments.folder, arguments.engine)
            make = {"onnxruntime": onnxruntime_pass, "openvino": openvino_pass, "tract": tract_pass}[arguments.engine]
            __import__(arguments.engine)
            start = time.perf_counter()
            serve(lambda: make(job, os.fspath(path)), job, start)
    except Exception as error:  # the reason is a row of the table
        say(error=str(error) or type(error).__name__)
        sys.exit(1)


if __name__ == "__main__":
    main()
