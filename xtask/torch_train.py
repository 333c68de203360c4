#!/usr/bin/env python3
"""ResNet-20 in PyTorch by a recipe of `convzoo train`, to compare the two.

    tar xzf cifar10-jpeg.tar.gz -C cifar10
    python xtask/torch_train.py cifar10 --recipe crates/convzoo-train/recipes/cifar10.toml --epochs 3 --seed 0 --out runs/pytorch-0
    convzoo train resnet20_cifar --data cifar10 --data-dir cifar10 --recipe cifar10 --epochs 3 --seed 0 --out runs/convzoo-0
    convzoo runs --compare runs/pytorch-0 runs/convzoo-0 --chart both.svg

Leaves a `run.json` as convzoo's, which `convzoo runs` reads, and prints its epochs, a line of JSON each. Of a recipe it knows SGD, the schedules
constant, multi-step, cosine and one-cycle, weight decay, label smoothing, crops with padding and mirror images, and
refuses whatever else is set.
"""
import argparse
import copy
import json
import pathlib
import sys
import time
import tomllib

import torch
import torchvision
from torch.nn import functional as F

from cifar import ResNet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(folder):
    """All images of a folder as bytes, decoded once."""
    data = torchvision.datasets.ImageFolder(folder)
    pixels = torch.stack([torchvision.transforms.functional.pil_to_tensor(image) for image, _ in data])
    return pixels, torch.tensor(data.targets)


def normalize(pixels):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def augment(pixels, padding, flip, generator):
    padded = F.pad(pixels, [padding] * 4)
    views = torch.empty_like(pixels)
    places = torch.randint(0, 2 * padding + 1, (len(pixels), 2), generator=generator).tolist()
    mirrored = (torch.rand(len(pixels), generator=generator) < flip).tolist()
    for i, ((top, left), mirror) in enumerate(zip(places, mirrored)):
        view = padded[i, :, top : top + 32, left : left + 32]
        views[i] = view.flip(2) if mirror else view
    return views


def take(recipe, key, default=None):
    return recipe.pop(key, default)


def scheduler(optimizer, kind, options, rate, epochs, batches):
    """The schedule, and whether it advances by epochs rather than by steps."""
    schedules = torch.optim.lr_scheduler
    if kind == "constant":
        return schedules.ConstantLR(optimizer, 1.0), True
    if kind == "multi-step":
        return schedules.MultiStepLR(optimizer, take(options, "milestones"), take(options, "factor", 0.1)), True
    if kind == "cosine":
        return schedules.CosineAnnealingLR(optimizer, epochs * batches, take(options, "end", 0.0)), False
    if kind == "one-cycle":
        cycle = {"pct_start": take(options, "rise", 0.3), "div_factor": take(options, "start_divisor", 25.0),
                 "final_div_factor": take(options, "end_divisor", 1e4), "cycle_momentum": False}
        return schedules.OneCycleLR(optimizer, rate, total_steps=epochs * batches, **cycle), False
    raise SystemExit(f"this script does not know the schedule {kind}")


def kind_and_options(value):
    value = {"kind": value} if isinstance(value, str) else dict(value)
    return value.pop("kind"), value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path, help="the folder with train/CLASS and test/CLASS")
    parser.add_argument("--recipe", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a new folder for the run")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)

    recipe = tomllib.loads(arguments.recipe.read_text())
    epochs = arguments.epochs or recipe["epochs"]
    run = {
        "command": sys.argv, "setup": {"model": "resnet20_cifar", "data": "cifar10"},
        "recipe_name": str(arguments.recipe), "recipe": {**copy.deepcopy(recipe), "epochs": epochs},
        "seed": arguments.seed, "device": "PyTorch", "versions": {"torch": torch.__version__},
        "started": int(time.time()), "status": "running", "epochs": [], "best_epoch": None,
    }
    del recipe["epochs"]
    size, rate = take(recipe, "batch_size"), take(recipe, "learning_rate")
    decay, smoothing = take(recipe, "weight_decay", 0.0), take(recipe, "label_smoothing", 0.0)
    decay_all = take(recipe, "decay_all", True)
    optimizer_kind, optimizer_options = kind_and_options(take(recipe, "optimizer"))
    schedule_kind, schedule_options = kind_and_options(take(recipe, "schedule"))
    views = take(recipe, "augment", {})
    padding, flip = take(views, "random_crop", 0), take(views, "random_horizontal_flip", 0.0)

    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    network = ResNet(3)
    if optimizer_kind != "sgd":
        raise SystemExit(f"this script does not know the optimizer {optimizer_kind}")
    spared = [p for p in network.parameters() if p.dim() == 1 and not decay_all]
    decayed = [p for p in network.parameters() if p.dim() > 1 or decay_all]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": spared, "weight_decay": 0.0}]
    momentum = take(optimizer_options, "momentum", 0.9)
    optimizer = torch.optim.SGD(groups, rate, momentum, nesterov=take(optimizer_options, "nesterov", False))
    (train, targets), (test, test_targets) = (images(arguments.data / part) for part in ("train", "test"))
    run |= {"train_images": len(train), "test_images": len(test)}
    batches = -(-len(train) // size)
    schedule, by_epoch = scheduler(optimizer, schedule_kind, schedule_options, rate, epochs, batches)
    unknown = recipe | views | optimizer_options | schedule_options
    if unknown:
        raise SystemExit(f"this script does not know {', '.join(unknown)}")

    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        network.train()
        loss_sum = correct = 0
        for batch in torch.randperm(len(train), generator=generator).split(size):
            logits = network(normalize(augment(train[batch], padding, flip, generator)))
            loss = F.cross_entropy(logits, targets[batch], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            last_rate = optimizer.param_groups[0]["lr"]
            if not by_epoch:
                schedule.step()
            loss_sum += loss.item() * len(batch)
            correct += (logits.argmax(1) == targets[batch]).sum().item()
        if by_epoch:
            schedule.step()
        images_per_second = len(train) / (time.perf_counter() - start)
        trained = {"loss": loss_sum / len(train), "accuracy": correct / len(train)}

        network.eval()
        loss_sum = correct = 0
        with torch.no_grad():
            for pixels, classes in zip(test.split(500), test_targets.split(500)):
                logits = network(normalize(pixels))
                loss_sum += F.cross_entropy(logits, classes, reduction="sum").item()
                correct += (logits.argmax(1) == classes).sum().item()
        tested = {"loss": loss_sum / len(test), "accuracy": correct / len(test)}
        run["epochs"].append({
            "epoch": epoch, "learning_rate": last_rate, "train": trained, "test": tested,
            "seconds": time.perf_counter() - start, "images_per_second": images_per_second,
        })
        print(json.dumps(run["epochs"][-1]), flush=True)
        run["best_epoch"] = max(run["epochs"], key=lambda epoch: epoch["test"]["accuracy"])["epoch"]
        run["status"] = "finished" if epoch == epochs else "running"
        (arguments.out / "run.json").write_text(json.dumps(run, indent=2))


if __name__ == "__main__":
    main()
