//! One file per family of networks.

use burn::module::Module;
use burn::tensor::Device;
use convzoo_blocks::FeatureMap;

use crate::registry::{Spec, Variant};
use crate::{Classifier, Outputs, Preprocessing};

pub mod airbench;
pub mod alexnet;
pub mod alexnet_2012;
pub mod bn_inception;
pub mod convnext;
pub mod densenet;
pub mod densenet_cifar;
pub mod efficientnet;
pub mod fractalnet;
pub mod googlenet;
pub mod inception_resnet_v2;
pub mod inception_v3;
pub mod inception_v4;
pub mod lenet;
pub mod mnasnet;
pub mod mobilenet_v2;
pub mod mobilenet_v3;
pub mod nin;
pub mod regnet;
pub mod resnet;
pub mod resnet_cifar;
pub mod resnetv2;
pub mod shufflenet_v2;
pub mod squeezenet;
pub mod vgg;
pub mod zfnet;

/// Puts the families into the registry: for each, its module, its network and its configuration.
macro_rules! families {
    ($($module:ident::{$network:ident, $config:ident},)*) => {
        /// A network of any family.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)] // one network exists at a time; boxing would not shrink it
        pub(crate) enum Family {
            $($network($module::$network),)*
        }

        /// The configuration of a variant.
        #[derive(Clone, Copy)]
        pub(crate) enum Build {
            $($network(fn() -> $module::$config),)*
        }

        impl Build {
            /// Makes the network that the configuration and the options describe.
            pub fn init(self, spec: &Spec, device: &Device) -> Family {
                let Spec { classes, channels, options } = *spec;
                match self {
                    $(Self::$network(config) => {
                        let config = config().with_classes(classes).with_channels(channels).with_options(options);
                        Family::$network(config.init(device))
                    })*
                }
            }
        }

        impl Classifier for Family {
            fn forward_features<M: FeatureMap>(&self, images: M) -> M {
                match self { $(Self::$network(network) => network.forward_features(images),)* }
            }
            fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
                match self { $(Self::$network(network) => network.forward_head(features),)* }
            }
            fn forward<M: FeatureMap>(&self, images: M) -> M::Vector {
                match self { $(Self::$network(network) => network.forward(images),)* }
            }
            fn forward_train<M: FeatureMap>(&self, images: M) -> Outputs<M::Vector> {
                match self { $(Self::$network(network) => network.forward_train(images),)* }
            }
            fn replace_head(self, classes: usize) -> Self {
                match self { $(Self::$network(network) => Self::$network(network.replace_head(classes)),)* }
            }
            fn preprocessing(&self) -> Preprocessing {
                match self { $(Self::$network(network) => network.preprocessing(),)* }
            }
            fn reference_name(&self, path: &[&str]) -> String {
                match self { $(Self::$network(network) => network.reference_name(path),)* }
            }
            fn respell(&self, name: &str) -> String {
                match self { $(Self::$network(network) => network.respell(name),)* }
            }
            fn optional_layers(&self) -> &'static [&'static str] {
                match self { $(Self::$network(network) => network.optional_layers(),)* }
            }
        }

        pub(crate) const FAMILIES: &[&[Variant]] = &[$($module::VARIANTS,)*];
    };
}

families! {
    lenet::{LeNet5, LeNet5Config},
    alexnet_2012::{AlexNet2012, AlexNet2012Config},
    zfnet::{ZfNet, ZfNetConfig},
    nin::{Nin, NinConfig},
    alexnet::{AlexNet, AlexNetConfig},
    vgg::{Vgg, VggConfig},
    googlenet::{GoogLeNet, GoogLeNetConfig},
    bn_inception::{BnInception, BnInceptionConfig},
    inception_v3::{InceptionV3, InceptionV3Config},
    inception_v4::{InceptionV4, InceptionV4Config},
    inception_resnet_v2::{InceptionResNetV2, InceptionResNetV2Config},
    resnet::{ResNet, ResNetConfig},
    resnet_cifar::{CifarResNet, CifarResNetConfig},
    resnetv2::{ResNetV2, ResNetV2Config},
    squeezenet::{SqueezeNet, SqueezeNetConfig},
    fractalnet::{FractalNet, FractalNetConfig},
    densenet::{DenseNet, DenseNetConfig},
    densenet_cifar::{CifarDenseNet, CifarDenseNetConfig},
    mobilenet_v2::{MobileNetV2, MobileNetV2Config},
    shufflenet_v2::{ShuffleNetV2, ShuffleNetV2Config},
    mnasnet::{MnasNet, MnasNetConfig},
    mobilenet_v3::{MobileNetV3, MobileNetV3Config},
    efficientnet::{EfficientNet, EfficientNetConfig},
    regnet::{RegNet, RegNetConfig},
    convnext::{ConvNext, ConvNextConfig},
    airbench::{Airbench, AirbenchConfig},
}
