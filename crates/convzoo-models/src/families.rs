//! One file per family of networks.

use burn::module::Module;
use convzoo_blocks::FeatureMap;

use crate::registry::Variant;
use crate::{Classifier, NameRules, Outputs, Preprocessing};

/// Declares the families: for each, its file, its network, and thereby its names in the registry. A new family is
/// its file and one line here.
macro_rules! families {
    ($($(#[$doc:meta])* $module:ident::$network:ident,)*) => {
        $($(#[$doc])* pub mod $module;)*

        /// A network of any family.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)] // one network exists at a time; boxing would not shrink it
        pub(crate) enum Family {
            $($network($module::$network),)*
        }

        $(impl From<$module::$network> for Family {
            fn from(network: $module::$network) -> Self {
                Self::$network(network)
            }
        })*

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
            fn names(&self) -> NameRules {
                match self { $(Self::$network(network) => network.names(),)* }
            }
        }

        pub(crate) const FAMILIES: &[&[Variant]] = &[$($module::VARIANTS,)*];
    };
}

families! {
    lenet::LeNet5,
    alexnet_2012::AlexNet2012,
    zfnet::ZfNet,
    nin::Nin,
    alexnet::AlexNet,
    vgg::Vgg,
    googlenet::GoogLeNet,
    bn_inception::BnInception,
    inception_v3::InceptionV3,
    inception_v4::InceptionV4,
    inception_resnet_v2::InceptionResNetV2,
    resnet::ResNet,
    resnet_cifar::CifarResNet,
    resnetv2::ResNetV2,
    squeezenet::SqueezeNet,
    fractalnet::FractalNet,
    densenet::DenseNet,
    densenet_cifar::DenseNetCifar,
}
