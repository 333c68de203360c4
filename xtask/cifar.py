"""CIFAR's networks in PyTorch, which torchvision does not have, as their papers and convzoo have them."""
import torch
from torch import nn
from torch.nn import functional as F


def conv(inputs, outputs, size=3, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class Basic(nn.Module):
    """Two 3×3 convolutions; the shortcut drops every other pixel and fills new channels with zeros (option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.new = stride, outputs - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
        return F.relu(y + shortcut)


class ResNet(nn.Module):
    """He et al., 2015, section 4.2: three stages of `blocks` blocks, initialized by He's normal distribution."""

    def __init__(self, blocks, classes=10):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16), nn.BatchNorm2d(16)
        widths = [16] * (blocks + 1) + [32] * blocks + [64] * blocks
        pairs = zip(widths, widths[1:])
        self.blocks = nn.Sequential(*(Basic(a, b, 1 if a == b else 2) for a, b in pairs))
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.linear(x.mean((2, 3)))


class PreActivation(nn.Module):
    """Batch norm and ReLU before each of two 3×3 convolutions; a 1×1 convolution of what they see is the shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x):
        y = F.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(y))))


class WideResNet(nn.Module):
    """Zagoruyko, Komodakis, 2016: 28 layers, ten times as wide."""

    def __init__(self, classes=10):
        super().__init__()
        widths = [16] + [160] * 4 + [320] * 4 + [640] * 4
        strides = [1] * 4 + [2, 1, 1, 1] * 2
        blocks = (PreActivation(a, b, stride) for a, b, stride in zip(widths, widths[1:], strides))
        self.features = nn.Sequential(conv(3, 16), *blocks, nn.BatchNorm2d(640), nn.ReLU(inplace=True))
        self.linear = nn.Linear(640, classes)

    def forward(self, x):
        return self.linear(self.features(x).mean((2, 3)))


class Dense(nn.Module):
    """Batch norm, ReLU and a 3×3 convolution, whose output joins its input."""

    def __init__(self, inputs, growth):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), conv(inputs, growth)

    def forward(self, x):
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class DenseNet(nn.Module):
    """Huang et al., 2016: 40 layers, a growth rate of 12, neither bottlenecks nor compression."""

    def __init__(self, classes=10):
        super().__init__()
        layers, channels = [conv(3, 16)], 16
        for block in range(3):
            if block > 0:
                transition = [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), conv(channels, channels, 1), nn.AvgPool2d(2)]
                layers += transition
            for _ in range(12):
                layers.append(Dense(channels, 12))
                channels += 12
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        return self.linear(self.features(x).mean((2, 3)))


def nin(classes=10):
    """Lin et al., 2013."""

    def block(inputs, widths, size):
        layers = [nn.Conv2d(inputs, widths[0], size, padding=size // 2), nn.ReLU(inplace=True)]
        for before, width in zip(widths, widths[1:]):
            layers += [nn.Conv2d(before, width, 1), nn.ReLU(inplace=True)]
        return layers

    return nn.Sequential(
        *block(3, (192, 160, 96), 5), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(),
        *block(96, (192, 192, 192), 5), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout(),
        *block(192, (192, 192, classes), 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )


NETWORKS = {
    "resnet20_cifar": lambda classes: ResNet(3, classes),
    "resnet56_cifar": lambda classes: ResNet(9, classes),
    "wide_resnet28_10": WideResNet,
    "densenet40_k12": DenseNet,
    "nin_cifar": nin,
}
