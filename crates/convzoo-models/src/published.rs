//! Weights that others have published for the networks here, as torchvision lists them.

/// The server that torchvision's weights are on.
pub const SERVER: &str = "https://download.pytorch.org/models";

/// One set of published weights, trained on ImageNet's 1,000 classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// The network.
    pub model: &'static str,
    /// The weights' name among the network's.
    pub name: &'static str,
    /// The file on [`SERVER`].
    pub file: &'static str,
    /// Accuracy on ImageNet's validation images, in percent, as torchvision states it.
    pub top1: f64,
    /// The share of those images whose class is among the strongest five, in percent.
    pub top5: f64,
    /// What the shorter side of an image is resized to before the centre crop.
    pub resize: usize,
}

impl Published {
    /// The beginning of the file's SHA-256: torchvision's file names end in it.
    pub fn sha256(&self) -> &'static str {
        let stem = self.file.strip_suffix(".pth").unwrap_or(self.file);
        stem.rsplit_once('-').map_or("", |(_, hash)| hash)
    }
}

const fn row(
    model: &'static str,
    name: &'static str,
    file: &'static str,
    top1: f64,
    top5: f64,
    resize: usize,
) -> Published {
    Published { model, name, file, top1, top5, resize }
}

/// All that are known, network by network.
///
/// GoogLeNet's and Inception v3's come from TensorFlow and expect images in −1 … 1, which torchvision calls
/// `transform_input`; [`preprocessing`](crate::Classifier::preprocessing) of the two does just that.
pub const PUBLISHED: &[Published] = &[
    row("alexnet", "imagenet1k_v1", "alexnet-owt-7be5be79.pth", 56.522, 79.066, 256),
    row("vgg11", "imagenet1k_v1", "vgg11-8a719046.pth", 69.02, 88.628, 256),
    row("vgg13", "imagenet1k_v1", "vgg13-19584684.pth", 69.928, 89.246, 256),
    row("vgg16", "imagenet1k_v1", "vgg16-397923af.pth", 71.592, 90.382, 256),
    row("vgg19", "imagenet1k_v1", "vgg19-dcbb9e9d.pth", 72.376, 90.876, 256),
    row("vgg11_bn", "imagenet1k_v1", "vgg11_bn-6002323d.pth", 70.37, 89.81, 256),
    row("vgg13_bn", "imagenet1k_v1", "vgg13_bn-abd245e5.pth", 71.586, 90.374, 256),
    row("vgg16_bn", "imagenet1k_v1", "vgg16_bn-6c64b313.pth", 73.36, 91.516, 256),
    row("vgg19_bn", "imagenet1k_v1", "vgg19_bn-c79401a0.pth", 74.218, 91.842, 256),
    row("googlenet", "imagenet1k_v1", "googlenet-1378be20.pth", 69.778, 89.53, 256),
    row("inception_v3", "imagenet1k_v1", "inception_v3_google-0cc3c7bd.pth", 77.294, 93.45, 342),
    row("resnet18", "imagenet1k_v1", "resnet18-f37072fd.pth", 69.758, 89.078, 256),
    row("resnet34", "imagenet1k_v1", "resnet34-b627a593.pth", 73.314, 91.42, 256),
    row("resnet50", "imagenet1k_v1", "resnet50-0676ba61.pth", 76.13, 92.862, 256),
    row("resnet50", "imagenet1k_v2", "resnet50-11ad3fa6.pth", 80.858, 95.434, 232),
    row("resnet101", "imagenet1k_v1", "resnet101-63fe2227.pth", 77.374, 93.546, 256),
    row("resnet101", "imagenet1k_v2", "resnet101-cd907fc2.pth", 81.886, 95.78, 232),
    row("resnet152", "imagenet1k_v1", "resnet152-394f9c45.pth", 78.312, 94.046, 256),
    row("resnet152", "imagenet1k_v2", "resnet152-f82ba261.pth", 82.284, 96.002, 232),
    row("resnext50_32x4d", "imagenet1k_v1", "resnext50_32x4d-7cdf4587.pth", 77.618, 93.698, 256),
    row("resnext50_32x4d", "imagenet1k_v2", "resnext50_32x4d-1a0047aa.pth", 81.198, 95.34, 232),
    row("resnext101_32x8d", "imagenet1k_v1", "resnext101_32x8d-8ba56ff5.pth", 79.312, 94.526, 256),
    row("resnext101_32x8d", "imagenet1k_v2", "resnext101_32x8d-110c445d.pth", 82.834, 96.228, 232),
    row("resnext101_64x4d", "imagenet1k_v1", "resnext101_64x4d-173b62eb.pth", 83.246, 96.454, 232),
    row("wide_resnet50_2", "imagenet1k_v1", "wide_resnet50_2-95faca4d.pth", 78.468, 94.086, 256),
    row("wide_resnet50_2", "imagenet1k_v2", "wide_resnet50_2-9ba9bcbe.pth", 81.602, 95.758, 232),
    row("wide_resnet101_2", "imagenet1k_v1", "wide_resnet101_2-32ee1156.pth", 78.848, 94.284, 256),
    row("wide_resnet101_2", "imagenet1k_v2", "wide_resnet101_2-d733dc28.pth", 82.51, 96.02, 232),
    row("squeezenet1_0", "imagenet1k_v1", "squeezenet1_0-b66bff10.pth", 58.092, 80.42, 256),
    row("squeezenet1_1", "imagenet1k_v1", "squeezenet1_1-b8a52dc0.pth", 58.178, 80.624, 256),
    row("densenet121", "imagenet1k_v1", "densenet121-a639ec97.pth", 74.434, 91.972, 256),
    row("densenet161", "imagenet1k_v1", "densenet161-8d451a50.pth", 77.138, 93.56, 256),
    row("densenet169", "imagenet1k_v1", "densenet169-b2777c0a.pth", 75.6, 92.806, 256),
    row("densenet201", "imagenet1k_v1", "densenet201-c1103571.pth", 76.896, 93.37, 256),
];

/// The published weights of a network.
pub fn published(model: &str) -> impl Iterator<Item = &'static Published> {
    PUBLISHED.iter().filter(move |weights| weights.model == model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_network_and_a_checksum() {
        for weights in PUBLISHED {
            let variant = crate::variant(weights.model).expect(weights.model);
            assert_eq!(variant.classes, 1000, "{}", weights.model);
            let hash = weights.sha256();
            assert!(hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", weights.file);
            assert!(weights.top1 < weights.top5 && weights.top5 < 100.0, "{}", weights.file);
        }
    }
}
