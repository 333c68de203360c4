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
    """Zagoruyko, Komodakis, 2016: three stages of `blocks` blocks, `factor` times as wide as a ResNet's, initialized by
    He's normal distribution."""

    def __init__(self, blocks, factor, classes=10):
        super().__init__()
        first = 16 * factor
        widths = [16] + [first] * blocks + [2 * first] * blocks + [4 * first] * blocks
        strides = [1] * blocks + ([2] + [1] * (blocks - 1)) * 2
        layers = (PreActivation(a, b, stride) for a, b, stride in zip(widths, widths[1:], strides))
        self.features = nn.Sequential(conv(3, 16), *layers, nn.BatchNorm2d(4 * first), nn.ReLU(inplace=True))
        self.linear = nn.Linear(4 * first, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return self.linear(self.features(x).mean((2, 3)))


class AirbenchBlock(nn.Module):
    """Two 3×3 convolutions whose first outputs pass their inputs on, a pooling after the first; batch norm and GELU."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, outputs), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        for layer in (self.conv1, self.conv2):
            nn.init.dirac_(layer.weight.data[: layer.in_channels])

    def forward(self, x):
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """Jordan, 2024, its first convolution trained like the others."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 2)
        self.blocks = nn.Sequential(AirbenchBlock(24, 64), AirbenchBlock(64, 256), AirbenchBlock(256, 256))
        self.linear = nn.Linear(256, classes)

    def forward(self, x):
        return self.linear(self.blocks(F.gelu(self.stem(x))).amax((2, 3)) / 9)


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
    "wide_resnet16_4": lambda classes: WideResNet(2, 4, classes),
    "wide_resnet28_10": lambda classes: WideResNet(4, 10, classes),
    "airbench94": Airbench,
    "densenet40_k12": DenseNet,
    "nin_cifar": nin,
}
