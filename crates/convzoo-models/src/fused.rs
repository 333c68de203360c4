use std::collections::HashMap;
use std::time::Duration;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use convzoo_blocks::graph::{Graph, Parameter, Quantized};
pub use convzoo_kernels::Precision;
use convzoo_kernels::elementwise::Activation;
use convzoo_kernels::engine::{CompileError, CompiledNetwork, Profile, ProfiledStep, compile};
use convzoo_kernels::{KernelError, Numbers, Values, extension};
use thiserror::Error;

use crate::quantize::{Quantization, value_names};
use crate::{Classifier, ModelError, Network};

/// How a quantized network with these weights, by their ids, computes in bytes.
pub(crate) fn in_bytes(
    graph: &Graph,
    weights: &HashMap<u64, Values>,
    quantization: &Quantization,
) -> Result<Quantized, CompileError> {
    let output = graph.nodes().len() - 1;
    let engine = compile(graph, output, Precision::F32, |parameter| weights.get(&parameter.id).cloned())?;
    Ok(engine.quantized(&quantization.scales(&value_names(graph, &engine), graph))?)
}

/// A network's inference on the CPU with fused layers: batch norms folded into convolutions, activations and sums
/// computed with them, memory shared between layers.
///
/// It shares the weights that the network had when it was fused, and is no module: it can be neither trained nor loaded
/// into. Its logits equal the network's up to rounding.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use convzoo_models::{Fused, Options, Precision, create};
///
/// let device = Device::flex();
/// let network = create("lenet5", &Options::default(), &device)?;
/// let fused = Fused::new(&network, network.input(), Precision::F32)?;
/// let logits = fused.forward(Tensor::zeros([1, 1, 32, 32], &device))?;
/// assert_eq!(logits.dims(), [1, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fused {
    engine: CompiledNetwork,
    /// The layers by the labels of the engine's stages: the nodes of the network's graph.
    names: Vec<String>,
}

/// Where a pass of a [`Fused`] network spends its time.
#[derive(Clone, Debug)]
pub struct FusedProfile {
    /// In the order of their computation.
    pub stages: Vec<FusedStage>,
    /// From the end of the last stage until the output is in NCHW order.
    pub answer: Duration,
    /// Bytes of memory that all activations share.
    pub value_bytes: usize,
}

/// A stage of a [`FusedProfile`].
#[derive(Clone, Debug)]
pub struct FusedStage {
    /// The layer that it computes, as [`Summary`](crate::Summary) names it; empty where it computes none.
    pub name: String,
    /// What it computes with it: other layers, a `sum`, an activation.
    pub with: Vec<String>,
    /// How it is computed, its cost, and its time.
    pub stage: ProfiledStep,
}

impl FusedStage {
    fn new(stage: ProfiledStep, names: &[String]) -> Self {
        let mut layers = stage.layers.iter().filter_map(|layer| names.get(*layer as usize).cloned());
        let name = layers.next().unwrap_or_default();
        let activation = Some(stage.activation).filter(|function| *function != Activation::Identity);
        let activation = activation.map(|function| function.kind().to_lowercase());
        let more = stage.sum.then(|| "sum".to_owned()).into_iter().chain(activation);
        Self { name, with: layers.chain(more).collect(), stage }
    }
}

/// Why a network cannot be fused, or returns no logits.
#[derive(Debug, Error)]
pub enum InferenceError {
    /// It does not take images of the size that it was fused for.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It has an operation that the kernels do not have.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It does not take such images.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// It is not on the device that computes in this precision.
    #[error("the precision {0} needs the device flex with convzoo's kernels on")]
    Precision(Precision),
    /// It is to compute in bytes, and nothing says how.
    #[error("the network is not quantized: Network::quantize or `convzoo quantize` finds the scales of its bytes")]
    NotQuantized,
    /// The images cannot be read from their device.
    #[error("the images cannot be read: {0}")]
    Images(String),
}

impl Fused {
    /// Fuses a network for images of `[channels, height, width]`; it then takes others that the network takes, too.
    /// Weights and activations are kept in `precision`.
    ///
    /// # Errors
    /// The network does not take such images, or has an operation that the kernels do not have.
    pub fn new(network: &impl Classifier, image: [usize; 3], precision: Precision) -> Result<Self, InferenceError> {
        let graph = network.graph(image)?;
        let output = graph.nodes().len() - 1;
        Self::up_to(network, &graph, output, precision)
    }

    /// Fuses a network up to a node of its [graph](Classifier::graph), for the maps that it makes there.
    ///
    /// # Errors
    /// There is an operation that the kernels do not have, or no such node.
    pub fn up_to(
        network: &impl Classifier,
        graph: &Graph,
        node: usize,
        precision: Precision,
    ) -> Result<Self, InferenceError> {
        let weights = weights_of(network);
        let weights = |parameter: &Parameter| weights.get(&parameter.id).cloned();
        let engine = match precision {
            Precision::Int8 => {
                let quantization = network.quantization().ok_or(InferenceError::NotQuantized)?;
                let engine = compile(graph, node, Precision::F32, weights)?;
                engine.quantize(&quantization.scales(&value_names(graph, &engine), graph))?
            }
            _ => compile(graph, node, precision, weights)?,
        };
        Ok(Self { engine, names: graph.nodes().iter().map(|node| node.name.clone()).collect() })
    }

    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`, on the images' device.
    ///
    /// # Errors
    /// The network does not take such images.
    pub fn forward(&self, images: Tensor<4>) -> Result<Tensor<2>, InferenceError> {
        let maps = self.maps(images)?;
        let [batch, classes, ..] = maps.dims();
        Ok(maps.reshape([batch, classes]))
    }

    /// Images `[batch, channels, height, width]` to the output, `[batch, channels, height, width]`, on the images' device;
    /// of vectors, height and width are 1.
    ///
    /// # Errors
    /// The network does not take such images.
    pub fn maps(&self, images: Tensor<4>) -> Result<Tensor<4>, InferenceError> {
        let (shape, device) = (images.dims(), images.device());
        let output = self.engine.run(shape, &values(images)?)?;
        Ok(Tensor::from_data(TensorData::new(output.values, output.shape), &device))
    }

    /// The numbers of its activations.
    pub fn numbers(&self) -> Numbers {
        self.engine.numbers()
    }

    /// The stages of the network for images `[batch, channels, height, width]`, each with its median time over some
    /// passes, one at least.
    ///
    /// # Errors
    /// The network does not take such images.
    pub fn profile(&self, images: Tensor<4>, passes: usize) -> Result<FusedProfile, InferenceError> {
        let plan = self.engine.plan(images.dims())?;
        let Profile { steps: stages, answer } = plan.profile(&values(images)?, passes)?;
        let stages = stages.into_iter().map(|stage| FusedStage::new(stage, &self.names)).collect();
        Ok(FusedProfile { stages, answer, value_bytes: plan.memory() })
    }
}

pub(crate) fn values(images: Tensor<4>) -> Result<Values, InferenceError> {
    extension::values(images).map_err(|error| InferenceError::Images(error.to_string()))
}

/// The values of a module's tensors by their ids, shared with it where they can be.
pub(crate) fn weights_of(module: &impl Module) -> HashMap<u64, Values> {
    struct Weights(HashMap<u64, Values>);
    impl ModuleVisitor for Weights {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Ok(values) = extension::values(param.val().without_autodiff()) {
                self.0.insert(param.id.val(), values);
            }
        }
    }
    let mut weights = Weights(HashMap::new());
    module.visit(&mut weights);
    weights.0
}

/// A network of the zoo in its fastest form for inference: [`Fused`] where this project's kernels compute, elsewhere as
/// it is. It is no module, so that it can be neither trained nor loaded into.
pub struct Inference {
    network: Network,
    fused: Option<Fused>,
}

impl Inference {
    /// Prepares a network, whose weights and activations are kept in `precision`.
    ///
    /// # Errors
    /// It cannot be fused where it should be, or its device has no other precision than 32 bits.
    pub fn new(network: Network, precision: Precision) -> Result<Self, InferenceError> {
        let on_kernels = Module::devices(&network).iter().all(extension::serves);
        if !on_kernels && precision != Precision::F32 {
            return Err(InferenceError::Precision(precision));
        }
        let fused = on_kernels.then(|| Fused::new(&network, network.input(), precision)).transpose()?;
        Ok(Self { network, fused })
    }

    /// The network as it is, layer by layer, on any device.
    pub fn plain(network: Network) -> Self {
        Self { network, fused: None }
    }

    /// The network itself: its name, classes, preprocessing.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The fused form, where this project's kernels compute.
    pub fn fused(&self) -> Option<&Fused> {
        self.fused.as_ref()
    }
}

/// What gives logits for images: a network, or a form of it that is made for inference.
pub trait Predict {
    /// Images `[batch, channels, height, width]` to logits `[batch, classes]`.
    ///
    /// # Errors
    /// It does not take such images.
    fn predict(&self, images: Tensor<4>) -> Result<Tensor<2>, InferenceError>;
}

impl<N: Classifier> Predict for N {
    fn predict(&self, images: Tensor<4>) -> Result<Tensor<2>, InferenceError> {
        Ok(self.forward(images))
    }
}

impl Predict for Fused {
    fn predict(&self, images: Tensor<4>) -> Result<Tensor<2>, InferenceError> {
        self.forward(images)
    }
}

impl Predict for Inference {
    fn predict(&self, images: Tensor<4>) -> Result<Tensor<2>, InferenceError> {
        match &self.fused {
            Some(fused) => fused.forward(images),
            None => Ok(self.network.forward(images)),
        }
    }
}

impl AsRef<Network> for Inference {
    fn as_ref(&self) -> &Network {
        &self.network
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use convzoo_blocks::{FeatureMap, Opaque};

    use super::*;
    use crate::{Options, create};

    /// ‖a − b‖ / ‖b‖ of a network's logits, fused and not, for two images of `side`×`side`.
    fn distance(name: &str, side: usize, precision: Precision) -> f32 {
        let device = Device::flex();
        let network = create(name, &Options::default().with_classes(10), &device).unwrap();
        let [channels, ..] = network.input();
        let fused = Fused::new(&network, [channels, side, side], precision).unwrap();
        let images = Tensor::random([2, channels, side, side], Distribution::Normal(0.0, 1.0), &device);
        let expected = network.forward(images.clone());
        let found = fused.forward(images).unwrap();
        let square = |tensor: Tensor<2>| tensor.square().sum().into_scalar::<f32>();
        (square(found - expected.clone()) / square(expected)).sqrt()
    }

    #[test]
    fn fused_networks_give_the_same_logits() {
        // Every kind of block, join and head.
        for (name, side) in [
            ("lenet5", 32),
            ("nin_cifar", 32),
            ("resnet20_cifar", 32),
            ("densenet40_k12", 32),
            ("fractalnet20", 32),
            ("squeezenet1_1", 64),
            ("googlenet", 64),
            ("bn_inception", 64),
            ("resnext50_32x4d", 64),
            ("resnetv2_50", 64),
            ("inception_resnet_v2", 96),
            ("mobilenet_v3_small", 64),
            ("shufflenet_v2_x0_5", 64),
            ("convnext_tiny", 64),
            ("airbench94", 32),
        ] {
            let error = distance(name, side, Precision::F32);
            assert!(error < 1e-4, "{name}: fused logits differ by {error:.1e} relative");
        }
    }

    #[test]
    fn linear_layers_in_f16_change_logits_by_less_than_their_rounding() {
        for (name, side) in [("alexnet", 64), ("lenet5", 32)] {
            let error = distance(name, side, Precision::LinearF16);
            // A weight is rounded by up to one part in 2048, some up and some down.
            assert!((1e-6..5e-4).contains(&error), "{name}: logits in half precision differ by {error:.1e} relative");
            println!("{name}: logits in half precision within {error:.1e} relative");
        }
    }

    #[test]
    fn bfloat16_changes_logits_by_no_more_than_its_roundings_add_up_to() {
        for (name, side) in [
            ("lenet5", 32),
            ("alexnet", 64),
            ("resnet20_cifar", 32),
            ("densenet40_k12", 32),
            ("squeezenet1_1", 64),
            ("bn_inception", 64),
            ("resnet50", 64),
            ("mobilenet_v3_small", 64),
            ("convnext_tiny", 64),
        ] {
            let network = create(name, &Options::default(), &Device::flex()).unwrap();
            let [channels, ..] = network.input();
            let layers = network.summary([channels, side, side]).unwrap().layers.len();
            let error = distance(name, side, Precision::Bf16);
            // Each layer rounds its output and its weights by a 256th at most, up and down, so that errors add up as their
            // squares; twice that, since layers after them may amplify.
            let bound = 2.0 * (2.0 * layers as f32).sqrt() / 256.0;
            assert!((1e-4..bound).contains(&error), "{name}: {error:.1e} relative, where {bound:.1e} may be");
            println!("{name}: logits in bfloat16 within {error:.1e} relative");
        }
    }

    #[test]
    fn a_profile_has_the_layers_of_the_summary() {
        for (name, side) in [
            ("lenet5", 32),
            ("resnet20_cifar", 32),
            ("googlenet", 64),
            ("densenet40_k12", 32),
            ("mobilenet_v3_small", 64),
            ("shufflenet_v2_x0_5", 64),
            ("convnext_tiny", 64),
        ] {
            let device = Device::flex();
            let network = create(name, &Options::default(), &device).unwrap();
            let [channels, ..] = network.input();
            let summary = network.summary([channels, side, side]).unwrap();
            let fused = Fused::new(&network, [channels, side, side], Precision::F32).unwrap();
            let stages = fused.profile(Tensor::zeros([2, channels, side, side], &device), 1).unwrap().stages;

            let macs: usize = stages.iter().map(|stage| stage.stage.macs).sum();
            // A shortcut without weights is computed as a convolution, which is no layer of the network.
            let shortcuts: usize =
                stages.iter().filter(|stage| stage.name.is_empty()).map(|stage| stage.stage.macs).sum();
            assert_eq!(macs - shortcuts, 2 * summary.macs, "multiply-adds of two images in {name}");
            for layer in &summary.layers {
                let has = |stage: &&FusedStage| stage.name == layer.name || stage.with.contains(&layer.name);
                let found: Vec<_> = stages.iter().filter(has).collect();
                let [stage] = found[..] else { panic!("{name}: {} is in stages {found:?}", layer.name) };
                let shape = &stage.stage.output[1..=layer.output.len()];
                assert_eq!(shape, layer.output, "{name}: the output of {}", layer.name);
            }
        }
    }

    #[test]
    fn a_stage_tells_what_was_folded_into_it() {
        let device = Device::flex();
        let network = create("resnet18", &Options::default(), &device).unwrap();
        let fused = Fused::new(&network, [3, 64, 64], Precision::F32).unwrap();
        let stages = fused.profile(Tensor::zeros([1, 3, 64, 64], &device), 1).unwrap().stages;
        let with = |name: &str| stages.iter().find(|stage| stage.name == name).map(|stage| stage.with.join(" "));
        assert_eq!(with("conv1").as_deref(), Some("bn1 relu"));
        assert_eq!(with("layer1.0.conv2").as_deref(), Some("layer1.0.bn2 sum relu"));
        assert_eq!(with("fc").as_deref(), Some(""));
    }

    #[test]
    fn an_operation_that_the_kernels_do_not_support_is_an_error() {
        #[derive(Module, Debug)]
        struct Doubled {
            network: crate::Network,
        }

        impl Classifier for Doubled {
            fn forward_features<M: FeatureMap>(&self, images: M) -> M {
                self.network.forward_features(images).layer(&Opaque::new("double", |x: Tensor<4>| x * 2.0))
            }
            fn forward_head<M: FeatureMap>(&self, features: M) -> M::Vector {
                self.network.forward_head(features)
            }
            fn replace_head(self, classes: usize) -> Self {
                Self { network: self.network.replace_head(classes) }
            }
        }
        let network = create("lenet5", &Options::default(), &Device::flex()).unwrap();
        let error = Fused::new(&Doubled { network }, [1, 32, 32], Precision::F32).err().unwrap();
        assert!(matches!(error, InferenceError::Compile(CompileError::Opaque { .. })), "{error}");
        assert!(error.to_string().contains("'double'"), "{error}");
    }

    #[test]
    fn a_fused_network_keeps_the_weights_it_was_made_of() {
        // Loading into the network, or training it, changes the network alone.
        let device = Device::flex();
        let network = create("lenet5", &Options::default(), &device).unwrap();
        let inference = Inference::new(network.clone(), Precision::F32).unwrap();
        let images = Tensor::random([2, 1, 32, 32], Distribution::Normal(0.0, 1.0), &device);
        let values = |logits: Tensor<2>| logits.into_data().try_into_vec::<f32>().unwrap();
        let before = values(inference.predict(images.clone()).unwrap());

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("other.safetensors");
        let other = create("lenet5", &Options::default(), &device).unwrap();
        crate::weights::save(&other, &file).unwrap();
        let loaded = crate::weights::load(network, &file).unwrap();
        let expected = values(other.forward(images.clone()));
        assert_eq!(values(loaded.forward(images.clone())), expected, "the loaded network has the file's weights");
        assert_eq!(values(inference.predict(images.clone()).unwrap()), before);
        // What is made of the loaded network has them, too.
        let inference = Inference::new(loaded, Precision::F32).unwrap();
        for (value, expected) in values(inference.predict(images).unwrap()).iter().zip(&expected) {
            assert!((value - expected).abs() < 1e-5, "{value}, the network itself gives {expected}");
        }
    }

    #[test]
    fn images_of_another_kind_are_an_error() {
        let device = Device::flex();
        let network = create("lenet5", &Options::default(), &device).unwrap();
        let fused = Fused::new(&network, network.input(), Precision::LinearF16).unwrap();
        let error = fused.forward(Tensor::zeros([1, 3, 32, 32], &device)).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("the network takes 1 channels and is given 3"));
    }
}
