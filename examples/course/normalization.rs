//! Why batch norm helps, on features as on maps, and its three relatives.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use convzoo::blocks::{
    Activation, BatchNorm2d, BatchNorm2dConfig, ConvUnit, ConvUnitConfig, Features, Init, Linear, LinearConfig,
    NormConfig, Pool, PoolConfig,
};
use convzoo::data::{Fit, Preprocess};
use convzoo::report::Lines;

use super::activations::save;
use super::show::{number, table, values};
use super::training::{Images, Plan, train};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Train a narrow VGG-11 with and without, too (a minute)
    #[arg(long)]
    train: bool,
    /// Steps of that training
    #[arg(long, value_name = "N", default_value_t = 150, requires = "train")]
    steps: usize,
    /// Write the curves to this folder, as SVG
    #[arg(long, value_name = "DIR", requires = "train")]
    pictures: Option<PathBuf>,
}

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    undone(out, device)?;
    features(out, device)?;
    relatives(out, device)?;
    if args.train { vgg(args, out, device) } else { Ok(()) }
}

/// With γ = √(σ² + ε) and β = μ the layer gives back its input: it can be switched off by learning.
fn undone(out: &mut dyn Write, device: &Device) -> Result<()> {
    let input = Tensor::<4>::from_data([[[[1., 2.], [3., 4.]]], [[[5., 6.], [7., 12.]]]], device);
    let mut layer = BatchNorm2dConfig::new(1).init(device);
    let normalized = values(&layer.forward(input.clone()))?;
    let (variance, mean) = (10.5f32, 5.0);
    layer.weight = Param::from_tensor(Tensor::full([1], (variance + 1e-5).sqrt(), device));
    layer.bias = Param::from_tensor(Tensor::full([1], mean, device));
    let undone = values(&layer.forward(input.clone()))?;
    ensure!(undone.iter().zip(values(&input)?).all(|(a, b)| (a - b).abs() < 1e-5), "{undone:?}");
    let row = |name: &str, values: &[f32]| {
        [name.to_owned(), values.iter().map(|value| format!("{:>6}", number(*value, 2))).collect()]
    };
    let rows =
        vec![row("γ = 1, β = 0", &normalized), row("γ = √10.5, β = 5", &undone), row("the input", &values(&input)?)];
    table(out, ["one channel, mean 5, variance 10.5", ""], rows)
}

/// Batch norm of features: each column is a channel. It is the layer of maps with one pixel.
fn features(out: &mut dyn Write, device: &Device) -> Result<()> {
    let rows = [[1., 10.], [2., 10.], [3., 40.], [6., 20.]];
    let input = Tensor::<2>::from_data(rows, device);
    let layer = BatchNorm2dConfig::new(2).init(device);
    let output = values(&layer.forward(input.clone()))?;
    let as_maps = values(&layer.forward(input.reshape([4, 2, 1, 1])))?;
    ensure!(output.iter().zip(&as_maps).all(|(a, b)| (a - b).abs() < 1e-5), "features and maps of one pixel differ");
    for (i, value) in output.iter().enumerate() {
        let column = rows.map(|row| row[i % 2]);
        let mean = column.iter().sum::<f64>() / 4.0;
        let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0;
        let by_hand = (column[i / 2] - mean) / (variance + 1e-5).sqrt();
        ensure!((by_hand - f64::from(*value)).abs() < 1e-5, "by hand it is {by_hand}");
    }
    let cells = (0..4).map(|row| {
        let [a, b] = rows[row].map(|value| number(value as f32, 0));
        [(row + 1).to_string(), a, b, number(output[2 * row], 4), number(output[2 * row + 1], 4)]
    });
    table(out, ["image", "feature 1", "feature 2", "normalized 1", "normalized 2"], cells.collect())
}

/// The set of values with which a value shares its mean, by its image, channel, row and column.
type Set = fn([usize; 4]) -> usize;

// ANCHOR: norms
/// Four norms of maps of four channels, and which values share a mean.
fn norms() -> [(&'static str, &'static str, NormConfig, Set); 4] {
    let epsilon = 1e-5;
    [
        ("batch", "N, H, W", NormConfig::batch(epsilon), |[_, c, ..]| c),
        ("layer", "C, H, W", NormConfig::Layer { epsilon }, |[n, ..]| n),
        ("instance", "H, W", NormConfig::Instance { epsilon }, |[n, c, ..]| 4 * n + c),
        ("2 groups", "C / 2, H, W", NormConfig::Group { groups: 2, epsilon }, |[n, c, ..]| 2 * n + c / 2),
    ]
}
// ANCHOR_END: norms

/// Batch, layer, instance and group norm: which values share a mean.
fn relatives(out: &mut dyn Write, device: &Device) -> Result<()> {
    let shape = [2, 4, 2, 2];
    let input = Tensor::<1, burn::tensor::Int>::arange(0..32, device).float().square().reshape(shape);
    let mut rows = Vec::new();
    for (name, over, norm, set) in norms() {
        let output = norm.init(4, device).forward(input.clone());
        let (sets, first) = by_hand(&values(&input)?, &values(&output)?, set)?;
        rows.push([name.to_owned(), over.to_owned(), sets.to_string(), (32 / sets).to_string(), number(first, 4)]);
    }
    table(out, ["norm", "mean over", "means", "values each", "first output"], rows)
}

/// Refuses outputs that are not normalized set by set; returns how many sets there are, and the first output.
fn by_hand(input: &[f32], output: &[f32], set: fn([usize; 4]) -> usize) -> Result<(usize, f32)> {
    let of = |i: usize| set([i / 16, i / 4 % 4, i / 2 % 2, i % 2]);
    let sets = (0..32).map(of).max().unwrap_or(0) + 1;
    for current in 0..sets {
        let members: Vec<usize> = (0..32).filter(|&i| of(i) == current).collect();
        let mean = members.iter().map(|&i| f64::from(input[i])).sum::<f64>() / members.len() as f64;
        let square = |&i: &usize| (f64::from(input[i]) - mean).powi(2);
        let variance = members.iter().map(square).sum::<f64>() / members.len() as f64;
        for i in members {
            let expected = (f64::from(input[i]) - mean) / (variance + 1e-5).sqrt();
            ensure!((expected - f64::from(output[i])).abs() < 1e-4, "{i}: {expected}, not {}", output[i]);
        }
    }
    Ok((sets, output[0]))
}

/// Where a convolution is normalized.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Nowhere,
    BeforeRelu,
    AfterRelu,
}

/// VGG's configuration A with an eighth of its channels, for images of 32×32.
#[derive(Module, Debug)]
struct Vgg {
    convs: Vec<ConvUnit>,
    norms: Vec<BatchNorm2d>,
    pool: Pool,
    classifier: Linear,
    norm_first: bool,
}

/// Channels of the eight convolutions, and whether a pooling follows.
const LAYERS: [(usize, bool); 8] =
    [(8, true), (16, true), (32, false), (32, true), (64, false), (64, true), (64, false), (64, true)];

impl Vgg {
    fn new(place: Place, device: &Device) -> Self {
        device.seed(0);
        let mut inputs = 1;
        let (mut convs, mut norms) = (Vec::new(), Vec::new());
        for (outputs, _) in LAYERS {
            let conv = ConvUnitConfig::square(inputs, outputs, 3).padded(1).linear();
            convs.push(conv.with_init(Init::KaimingNormalFanIn).init(device));
            if place != Place::Nowhere {
                norms.push(BatchNorm2dConfig::new(outputs).init(device));
            }
            inputs = outputs;
        }
        let classifier = LinearConfig::new(64, 10).init(device);
        Self { convs, norms, pool: PoolConfig::max(2, 2).init(), classifier, norm_first: place == Place::BeforeRelu }
    }

    // ANCHOR: forward
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = images;
        for (i, (_, pooled)) in LAYERS.iter().enumerate() {
            x = self.convs[i].forward(x);
            x = match self.norms.get(i) {
                None => x.activation(Activation::Relu),
                Some(norm) if self.norm_first => norm.forward(x).activation(Activation::Relu),
                Some(norm) => norm.forward(x.activation(Activation::Relu)),
            };
            x = if *pooled { self.pool.forward(x) } else { x };
        }
        self.classifier.forward(x.flatten(1, 3))
    }
    // ANCHOR_END: forward
}

/// The narrow VGG-11 on the embedded digits, at three learning rates.
fn vgg(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let input = Preprocess::new(1, 32, 32, Fit::Resize).normalized([0.3; 3], [0.37; 3]);
    let [digits, test] = Images::digits(usize::MAX, &input, device)?;
    let rates = [0.01, 0.05, 0.2];
    let mut chart = Lines::new("narrow VGG-11, learning rate 0.05", "step", "loss, mean of five steps");
    let mut rows = Vec::new();
    for (name, place) in [
        ("without", Place::Nowhere),
        ("batch norm before ReLU", Place::BeforeRelu),
        ("batch norm after ReLU", Place::AfterRelu),
    ] {
        let mut cells = Vec::new();
        for rate in rates {
            let plan = Plan { steps: args.steps, batch: 32, rate, momentum: 0.9, weight_decay: 0.0 };
            let (mut curve, mut sum) = (Vec::new(), 0.0);
            let network = train(Vgg::new(place, device), Vgg::forward, &digits, plan, |step, loss, _| {
                sum += loss;
                if step % 5 == 0 {
                    curve.push((step as f64, std::mem::take(&mut sum) / 5.0));
                }
                Ok(())
            })?;
            cells.push(format!("{:.1} %", 100.0 * test.accuracy(&network, Vgg::forward)?));
            if rate == 0.05 {
                chart = chart.series(name, curve);
            }
        }
        let [a, b, c] = std::array::from_fn(|i| cells[i].clone());
        rows.push([name.to_owned(), a, b, c]);
    }
    let [a, b, c] = rates.map(|rate| format!("rate {rate}"));
    table(out, [&format!("accuracy on the test digits after {} steps", args.steps), &a, &b, &c], rows)?;
    save(args.pictures.as_deref(), "why-batch-norm.svg", &chart)
}
