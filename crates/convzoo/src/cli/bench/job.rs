//! What the bench and its workers say to each other, a JSON document a line.
//!
//! The bench writes a [`Job`], then [`Request`]s; the worker writes a [`Reply`] to the job and to each request, and
//! ends when its standard input does. Whatever else stands on a worker's standard output is not listened to.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a worker measures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The network, as the registry names it.
    pub model: String,
    /// Where it runs.
    pub device: String,
    /// What it does.
    pub mode: Mode,
    /// Images per pass.
    pub batch: usize,
    /// Channels, height and width of the images.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// The type of weights and activations.
    pub precision: Precision,
    /// Whether a training step computes blocks twice.
    #[serde(default)]
    pub checkpointing: bool,
    /// Threads that a CPU computes with.
    pub threads: usize,
    /// The longest that passes before the first reading may take, in seconds.
    pub warm_up: f64,
}

/// What a network does for each reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Images to logits
    Infer,
    /// Forward, loss, backward and a step of SGD with momentum
    Train,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Train => "train",
        }
    }

    /// Forward passes that one reading is counted as: the gradients of a layer's input and of its weights each take
    /// the multiply-adds of the layer itself.
    pub fn forward_passes(self) -> usize {
        match self {
            Self::Infer => 1,
            Self::Train => 3,
        }
    }
}

/// The type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bits; on CUDA, Burn's fastest kernel may multiply in TF32
    F32,
    /// 32 bits, weights of fully-connected layers in 16; inference on flex with its kernels
    LinearF16,
    /// 32 bits that a GPU may shorten inside its kernels
    Flex32,
    /// 16 bits
    F16,
    /// 16 bits with the exponent of 32
    Bf16,
    /// Bytes, by scales found on random images; inference on flex with its kernels
    Int8,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::LinearF16 => "linear-f16",
            Self::Flex32 => "flex32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// What the bench asks of a worker that is ready.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Readings for about this many seconds.
    Run {
        /// At least one pass is made, however long it takes.
        seconds: f64,
    },
    /// The time of each layer in the forward pass.
    Profile {
        /// For about this many seconds, one pass at least.
        seconds: f64,
    },
}

/// What a worker replies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The passes take a steady time.
    Ready {
        /// Until the network stood on the device.
        load_ms: f64,
        /// From then to the first result.
        first_ms: f64,
    },
    /// Readings.
    Times {
        /// One for each pass.
        ms: Vec<f64>,
        /// Most memory the process has held until now.
        peak_rss_mib: Option<f64>,
    },
    /// The pass in its parts.
    Profile(Profile),
    /// It cannot, and why. The last reply.
    Error(String),
}

/// A pass in its parts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Profile {
    /// Layers, or the stages of a fused network. Of training on the kernels in the whole step, else in the forward pass.
    pub layers: Vec<LayerTime>,
    /// What the machine can do, of a fused network and of a training step on the kernels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<Peak>,
}

/// The most that the machine was measured to do, with as many threads.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Peak {
    /// Billions of floating-point operations in a second, two for a multiply-add.
    pub gflops: f64,
    /// Billions of bytes in a second that are read of as much memory as the network's weights and activations take.
    pub weights_gbs: f64,
    /// The same of as much as its activations take.
    pub values_gbs: f64,
}

impl Peak {
    /// The milliseconds that some work takes at least: its operations, or the bytes it moves.
    pub fn least_ms(&self, work: &Work) -> f64 {
        let multiply = 2.0 * work.multiplications as f64 / self.gflops;
        let read = work.weight_bytes as f64 / self.weights_gbs + work.value_bytes as f64 / self.values_gbs;
        multiply.max(read) / 1e6
    }
}

/// The time of one layer, or of one stage of a fused network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerTime {
    /// Its name in the reference's state dict; empty for a stage that computes no layer, and a description for what
    /// is between them all.
    pub name: String,
    /// What a stage computes with its layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// PyTorch's name for the kind of layer, or how a stage is computed.
    pub kind: String,
    /// Output shape without the batch.
    pub output: Vec<usize>,
    /// Median time of a pass over the batch.
    pub median_ms: f64,
    /// Billions of floating-point operations in a second, two for a multiply-add.
    pub gflops: f64,
    /// The least time of a pass over the batch, of a stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ms: Option<f64>,
    /// What a stage takes.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// The parts of a training step, which `median_ms` is the sum of.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub parts: Option<StepTimes>,
    /// What it would take at the machine's peak, in milliseconds; the bench finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_ms: Option<f64>,
}

/// The median milliseconds that a layer takes in each part of a training step.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct StepTimes {
    /// Forward.
    pub forward_ms: f64,
    /// The gradient of its input; of a normalization those of its parameters, too.
    pub input_gradient_ms: f64,
    /// The gradients of weight and bias.
    pub weight_gradient_ms: f64,
    /// The optimizer's step.
    pub update_ms: f64,
}

/// What a stage of a fused network takes for a batch.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Work {
    /// Multiply-adds by definition.
    pub macs: usize,
    /// Multiplications that are done in their stead.
    pub multiplications: usize,
    /// Bytes of weights that are read.
    pub weight_bytes: usize,
    /// Bytes of activations that are read and written at least.
    pub value_bytes: usize,
}
