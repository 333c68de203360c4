#!/usr/bin/env python3
"""CIFAR's networks (cifar.py) in PyTorch by a recipe of `convzoo train`, to compare the two.

    tar xzf cifar10-jpeg.tar.gz -C cifar10
    python xtask/torch_train.py cifar10 --recipe crates/convzoo-train/recipes/cifar10_fast.toml --epochs 3 --seed 0 --out runs/pytorch-0
    convzoo train resnet20_cifar --data cifar10 --data-dir cifar10 --recipe cifar10_fast --epochs 3 --seed 0 --out runs/convzoo-0
    convzoo runs --compare runs/pytorch-0 runs/convzoo-0 --chart both.svg

Leaves a `run.json` as convzoo's, which `convzoo runs` reads, and prints its epochs, a line of JSON each. After each epoch it
leaves a checkpoint, from which the same command goes on. Of a recipe it knows SGD, the schedules constant, multi-step,
cosine and one-cycle, weight decay, label smoothing, averaged weights, crops with padding and mirror images, by chance and
alternating, and refuses whatever else is set.
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

from cifar import NETWORKS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(folder):
    """All images of a folder as bytes, decoded once."""
    data = torchvision.datasets.ImageFolder(folder)
    pixels = torch.stack([torchvision.transforms.functional.pil_to_tensor(image) for image, _ in data])
    return pixels, torch.tensor(data.targets)


def normalize(pixels):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def augment(pixels, padding, mirrored, generator):
    """Each image cropped anywhere from itself with a black border, and mirrored where `mirrored`, `[batch]`, says so."""
    windows = F.pad(pixels, [padding] * 4).unfold(2, 32, 1).unfold(3, 32, 1)
    top, left = torch.randint(0, 2 * padding + 1, (2, len(pixels)), generator=generator)
    views = windows[torch.arange(len(pixels)), :, top, left]
    return torch.where(mirrored.view(-1, 1, 1, 1), views.flip(3), views)


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
    parser.add_argument("--model", choices=NETWORKS, default="resnet20_cifar")
    parser.add_argument("--recipe", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="a new folder for the run, or that of one to go on with")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    recipe = tomllib.loads(arguments.recipe.read_text())
    epochs = arguments.epochs or recipe["epochs"]
    run = {
        "command": sys.argv, "setup": {"model": arguments.model, "data": "cifar10"},
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
    alternating, most_decay = take(views, "alternating_flip", False), take(recipe, "ema")

    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    network = NETWORKS[arguments.model](10)
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
    # Weights and running statistics, averaged; what is tested is the network that has the averages as its tensors.
    averaged = copy.deepcopy(network) if most_decay else network
    floats = [[t for t in n.state_dict().values() if t.is_floating_point()] for n in (averaged, network)]
    first_mirrored = torch.rand(len(train), generator=generator) < 0.5
    steps = 0

    checkpoint = arguments.out / "checkpoint.pt"
    parts = {"network": network, "averaged": averaged, "optimizer": optimizer, "schedule": schedule}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        generator.set_state(saved["generator"])
        first_mirrored, steps, run["epochs"] = saved["first_mirrored"], saved["steps"], json.loads(saved["epochs"])

    for epoch in range(len(run["epochs"]) + 1, epochs + 1):
        start = time.perf_counter()
        network.train()
        loss_sum = correct = 0
        for batch in torch.randperm(len(train), generator=generator).split(size):
            by_chance = torch.rand(len(batch), generator=generator) < flip
            mirrored = first_mirrored[batch] ^ (epoch % 2 == 0) if alternating else by_chance
            logits = network(normalize(augment(train[batch], padding, mirrored, generator)))
            loss = F.cross_entropy(logits, targets[batch], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if most_decay:
                average_decay = min(most_decay, (1 + steps) / (10 + steps))
                with torch.no_grad():
                    torch._foreach_lerp_(*floats, 1 - average_decay)
            last_rate = optimizer.param_groups[0]["lr"]
            if not by_epoch:
                schedule.step()
            loss_sum += loss.item() * len(batch)
            correct += (logits.argmax(1) == targets[batch]).sum().item()
        if by_epoch:
            schedule.step()
        images_per_second = len(train) / (time.perf_counter() - start)
        trained = {"loss": loss_sum / len(train), "accuracy": correct / len(train)}

        averaged.eval()
        loss_sum = correct = 0
        with torch.no_grad():
            for pixels, classes in zip(test.split(500), test_targets.split(500)):
                logits = averaged(normalize(pixels))
                loss_sum += F.cross_entropy(logits, classes, reduction="sum").item()
                correct += (logits.argmax(1) == classes).sum().item()
        tested = {"loss": loss_sum / len(test), "accuracy": correct / len(test)}
        run["epochs"].append({
            "epoch": epoch, "learning_rate": last_rate, "train": trained, "test": tested,
            "seconds": time.perf_counter() - start, "images_per_second": images_per_second,
        })
        print(json.dumps(run["epochs"][-1]), flush=True)
        saved = {name: part.state_dict() for name, part in parts.items()}
        saved |= {"generator": generator.get_state(), "first_mirrored": first_mirrored, "steps": steps}
        unfinished = checkpoint.with_suffix(".part")
        torch.save(saved | {"epochs": json.dumps(run["epochs"])}, unfinished)
        unfinished.replace(checkpoint)
        run["best_epoch"] = max(run["epochs"], key=lambda epoch: epoch["test"]["accuracy"])["epoch"]
        run["status"] = "finished" if epoch == epochs else "running"
        unfinished = arguments.out / "run.part"
        unfinished.write_text(json.dumps(run, indent=2))
        unfinished.replace(arguments.out / "run.json")


if __name__ == "__main__":
    main()
