"""Makes operations.txt: what torchvision's functions return for a small Pillow image, in hexadecimal.

    python tests/operations.py > tests/operations.txt
"""

import math

from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

WIDTH, HEIGHT = 11, 7


def pixel(at):
    return (at * at * 31 + at * 17 + at // 5 * 90) % 241


def affine(image, translate=(0, 0), shear=(0.0, 0.0), center=None):
    degrees = [math.degrees(math.atan(share)) for share in shear]
    return F.affine(image, 0.0, list(translate), 1.0, degrees, InterpolationMode.BILINEAR, center=center)


OPERATIONS = {
    "Identity": [(0, lambda image, _: image)],
    "ShearX": [(v, lambda image, v: affine(image, shear=(v, 0.0), center=[0, 0])) for v in (0.3, -0.99)],
    "ShearY": [(v, lambda image, v: affine(image, shear=(0.0, v), center=[0, 0])) for v in (0.3, -0.99)],
    "TranslateX": [(v, lambda image, v: affine(image, translate=(int(v), 0))) for v in (3.7, -2.0)],
    "TranslateY": [(v, lambda image, v: affine(image, translate=(0, int(v)))) for v in (3.7, -20.0)],
    "Rotate": [(v, lambda image, v: F.rotate(image, v, InterpolationMode.BILINEAR)) for v in (10.0, -135.0, 33.3)],
    "Brightness": [(v, F.adjust_brightness) for v in (0.01, 0.6, 1.9)],
    "Contrast": [(v, F.adjust_contrast) for v in (0.01, 0.6, 1.9)],
    "Color": [(v, F.adjust_saturation) for v in (0.01, 0.6, 1.9)],
    "Sharpness": [(v, F.adjust_sharpness) for v in (0.01, 0.6, 1.9)],
    "Hue": [(v, F.adjust_hue) for v in (0.1, -0.4, 0.5)],
    "Posterize": [(v, F.posterize) for v in (8, 5, 2)],
    "Solarize": [(v, F.solarize) for v in (255.0, 127.5, 0.0)],
    "AutoContrast": [(0, lambda image, _: F.autocontrast(image))],
    "Equalize": [(0, lambda image, _: F.equalize(image))],
}

for mode, channels in (("RGB", 3), ("L", 1)):
    values = bytes(pixel(at) for at in range(WIDTH * HEIGHT * channels))
    image = Image.frombytes(mode, (WIDTH, HEIGHT), values)
    for name, cases in OPERATIONS.items():
        for strength, function in cases:
            print(channels, name, strength, function(image, strength).tobytes().hex())

# Large enough to have a histogram worth evening.
image = Image.frombytes("L", (64, 64), bytes(pixel(at) // 2 + at % 7 for at in range(64 * 64)))
counts = [F.equalize(image).histogram()[value] for value in range(256)]
print("histogram", "Equalize", 0, bytes(min(count, 255) for count in counts).hex())
