//! Activations, their derivatives, and what becomes of gradients and values in a deep network.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Distribution, Tensor};
use convzoo::blocks::{Activation, Features, Init, Linear, LinearConfig};
use convzoo::data::{Fit, Preprocess, Source, open};
use convzoo::preprocess;
use convzoo::report::{Chart, Lines};
use convzoo::{Classifier, Options, create};

use super::show::{number, table, values};
use super::training::{Images, Plan, train};

const ACTIVATIONS: [(&str, Activation); 3] =
    [("sigmoid", Activation::Sigmoid), ("tanh", Activation::Tanh), ("ReLU", Activation::Relu)];

#[derive(clap::Args, Default)]
pub struct Args {
    /// Train LeNet-5 with each activation, too (some seconds)
    #[arg(long)]
    train: bool,
    /// Steps of that training
    #[arg(long, value_name = "N", default_value_t = 600, requires = "train")]
    steps: usize,
    /// Write the curves to this folder, as SVG
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

#[derive(clap::Args, Default)]
pub struct InitializationArgs {
    /// Train the ten layers from each rule's weights, too (some seconds)
    #[arg(long)]
    train: bool,
    /// Steps of that training
    #[arg(long, value_name = "N", default_value_t = 300, requires = "train")]
    steps: usize,
    /// Write the curves to this folder, as SVG
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

/// Functions and derivatives, a chain of neurons by hand, and the gradients of a deep network.
pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    derivatives(args.pictures.as_deref(), out, device)?;
    chain(out, device)?;
    let mut chart = Lines::new("gradient of the weights, before training", "layer", "norm").logarithmic();
    let mut columns = Vec::new();
    for (name, activation) in ACTIVATIONS {
        let norms = Deep::new(activation, Init::XavierUniform, device).gradients(device)?;
        chart = chart.series(name, norms.iter().enumerate().map(|(layer, norm)| ((layer + 1) as f64, *norm)));
        columns.push(norms);
    }
    by_layer(out, "norm of the gradient of layer", ["sigmoid", "tanh", "ReLU"], &columns)?;
    save(args.pictures.as_deref(), "gradients.svg", &chart)?;
    if args.train { lenet(args, out, device) } else { Ok(()) }
}

/// Each function and its derivative: by the formula, and by the layer and its gradient.
fn derivatives(pictures: Option<&Path>, out: &mut dyn Write, device: &Device) -> Result<()> {
    let mut functions = Lines::new("activations", "x", "f(x)");
    let mut slopes = Lines::new("their derivatives", "x", "f′(x)");
    let points: Vec<f32> = (-60..=60).map(|tenth| tenth as f32 / 10.0).collect();
    let mut columns = Vec::new();
    for (name, activation) in ACTIVATIONS {
        let [y, slope] = differentiate(activation, &points, device)?;
        for ((x, y), slope) in points.iter().zip(&y).zip(&slope) {
            let (f, derivative) = formula(activation, *x);
            ensure!((f - y).abs() < 1e-6 && (derivative - slope).abs() < 1e-6, "{name} at {x}: not by the formula");
        }
        let curve =
            |values: &[f32]| points.iter().zip(values).map(|(x, y)| (f64::from(*x), f64::from(*y))).collect::<Vec<_>>();
        functions = functions.series(name, curve(&y).into_iter().filter(|(_, y)| *y <= 2.0));
        slopes = slopes.series(name, curve(&slope));
        columns.push([y, slope]);
    }
    let rows = [-5.0f32, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0].map(|x| {
        let at = ((x + 6.0) * 10.0).round() as usize;
        let cell = |i: usize| number(columns[i / 2][i % 2][at], 4);
        [number(x, 0), cell(0), cell(1), cell(2), cell(3), cell(4), cell(5)]
    });
    table(out, ["x", "sigmoid", "slope", "tanh", "slope", "ReLU", "slope"], rows.into())?;
    save(pictures, "activations.svg", &functions)?;
    save(pictures, "derivatives.svg", &slopes)
}

// ANCHOR: differentiate
/// An activation of some points, and its slope there by automatic differentiation.
fn differentiate(activation: Activation, points: &[f32], device: &Device) -> Result<[Vec<f32>; 2]> {
    let x = Tensor::<1>::from_data(points, device).require_grad();
    let y = x.clone().activation(activation);
    let slope = x.grad(&y.clone().sum().backward()).context("x has no gradient")?;
    Ok([values(&y)?, values(&slope)?])
}
// ANCHOR_END: differentiate

// ANCHOR: formula
/// A function and its derivative. ReLU has none at 0; layers take 0 there.
fn formula(activation: Activation, x: f32) -> (f32, f32) {
    match activation {
        Activation::Sigmoid => {
            let y = 1.0 / (1.0 + (-x).exp());
            (y, y * (1.0 - y))
        }
        Activation::Tanh => (x.tanh(), 1.0 - x.tanh().powi(2)),
        Activation::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
        other => unreachable!("{other:?} is not among the three of this chapter"),
    }
}
// ANCHOR_END: formula

/// Five neurons in a row, each with weight 1: the gradient that reaches the input is the product of their slopes.
fn chain(out: &mut dyn Write, device: &Device) -> Result<()> {
    let input = Tensor::<1>::from_data([1.0], device).require_grad();
    let (mut x, mut product, mut rows) = (input.clone(), 1.0, Vec::new());
    for layer in 1..=5 {
        let before = values(&x)?[0];
        let (after, slope) = formula(Activation::Sigmoid, before);
        x = x.activation(Activation::Sigmoid);
        product *= slope;
        rows.push([layer.to_string(), number(before, 4), number(after, 4), number(slope, 4), format!("{product:.6}")]);
    }
    let gradient = input.grad(&x.backward()).context("the input has no gradient")?;
    ensure!((values(&gradient)?[0] - product).abs() < 1e-6, "the product of the slopes is not the gradient");
    table(out, ["sigmoid neuron", "input", "output", "slope", "product of the slopes"], rows)
}

/// Fully-connected layers of 64 features with an activation after each, and ten classes.
#[derive(Module, Debug)]
struct Deep {
    layers: Vec<Linear>,
    classifier: Linear,
    #[module(skip)]
    activation: Activation,
}

/// Digits as they are, 8×8, at mean 0 and deviation 1.
fn eight() -> Preprocess {
    Preprocess::new(1, 8, 8, Fit::Resize).normalized([0.3; 3], [0.37; 3])
}

/// Hidden layers of [`Deep`].
const LAYERS: usize = 10;

impl Deep {
    fn new(activation: Activation, init: Init, device: &Device) -> Self {
        device.seed(0);
        let linear = |outputs| LinearConfig::new(64, outputs).with_init(init).init(device);
        Self { layers: (0..LAYERS).map(|_| linear(64)).collect(), classifier: linear(10), activation }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.layers.iter().fold(images.flatten(1, 3), |x, layer| layer.forward(x).activation(self.activation));
        self.classifier.forward(x)
    }

    /// The norm of each hidden layer's gradient, for a batch of digits.
    fn gradients(&self, device: &Device) -> Result<Vec<f64>> {
        let [digits, _] = Images::digits(128, &eight(), device)?;
        let loss = CrossEntropyLossConfig::new().init(device).forward(self.forward(digits.images), digits.labels);
        let gradients = loss.backward();
        let norm = |layer: &Linear| {
            let gradient = layer.weight.val().grad(&gradients).context("a layer has no gradient")?;
            Ok(f64::from(gradient.square().sum().sqrt().try_into_scalar::<f32>()?))
        };
        self.layers.iter().map(norm).collect()
    }

    // ANCHOR: deviations
    /// The standard deviation of what each hidden layer gives for noise of deviation 1.
    fn deviations(&self, device: &Device) -> Result<Vec<f64>> {
        let mut x = Tensor::<2>::random([256, 64], Distribution::Normal(0.0, 1.0), device);
        let deviation = |layer: &Linear| {
            x = layer.forward(x.clone()).activation(self.activation);
            Ok(f64::from(x.clone().reshape([-1]).var_mean(0).0.sqrt().try_into_scalar::<f32>()?))
        };
        self.layers.iter().map(deviation).collect()
    }
    // ANCHOR_END: deviations
}

/// Rules by which weights are drawn.
const RULES: ([&str; 3], [Init; 3]) =
    (["normal, 0.01", "Xavier", "He"], [Init::Normal(0.01), Init::XavierUniform, Init::KaimingNormalFanIn]);

/// A weight of 64 inputs, drawn in three ways, and what becomes of values and gradients in ten layers.
pub fn initialization(args: &InitializationArgs, out: &mut dyn Write, device: &Device) -> Result<()> {
    let device = &device.clone().autodiff();
    let pictures = args.pictures.as_deref();
    device.seed(0);
    let (names, inits) = RULES;
    let rows = names.iter().zip(inits).zip(["0.01", "√(2 / (64 + 64))", "√(2 / 64)"]).map(|((name, init), formula)| {
        let weight = LinearConfig::new(64, 64).with_init(init).init(device).weight.val();
        let deviation = weight.reshape([-1]).var_mean(0).0.sqrt().try_into_scalar::<f32>()?;
        Ok([(*name).to_owned(), formula.to_owned(), number(deviation, 3)])
    });
    table(out, ["weights", "standard deviation", "of those drawn"], rows.collect::<Result<_>>()?)?;
    for (name, activation) in &ACTIVATIONS[1..] {
        let mut chart =
            Lines::new(format!("values in a network with {name}"), "layer", "standard deviation").logarithmic();
        let (mut deviations, mut gradients) = (Vec::new(), Vec::new());
        for (init_name, init) in names.iter().zip(inits) {
            let network = Deep::new(*activation, init, device);
            gradients.push(network.gradients(device)?);
            deviations.push(network.deviations(device)?);
            let curve = deviations.last().into_iter().flatten().enumerate();
            chart = chart.series(*init_name, curve.map(|(layer, value)| ((layer + 1) as f64, *value)));
        }
        by_layer(out, &format!("{name}, deviation of the values after layer"), names, &deviations)?;
        by_layer(out, &format!("{name}, norm of the gradient of layer"), names, &gradients)?;
        save(pictures, &format!("initialization-{}.svg", name.to_lowercase()), &chart)?;
    }
    if args.train { from_each(args, out, device) } else { Ok(()) }
}

/// The ten layers trained on the digits from weights by each rule.
fn from_each(args: &InitializationArgs, out: &mut dyn Write, device: &Device) -> Result<()> {
    let [digits, test] = Images::digits(usize::MAX, &eight(), device)?;
    let plan = Plan { steps: args.steps, batch: 32, rate: 0.02, momentum: 0.9, weight_decay: 0.0 };
    let (names, inits) = RULES;
    let mut chart = Lines::new("ten layers with ReLU on the digits", "step", "loss, mean of ten steps");
    let mut rows = Vec::new();
    for (name, activation) in &ACTIVATIONS[1..] {
        let mut row = vec![(*name).to_owned()];
        for (rule, init) in names.iter().zip(inits) {
            let (mut curve, mut sum) = (Vec::new(), 0.0);
            let network = Deep::new(*activation, init, device);
            let network = train(network, Deep::forward, &digits, plan, |step, loss, _| {
                sum += loss;
                if step % 10 == 0 {
                    curve.push((step as f64, std::mem::take(&mut sum) / 10.0));
                }
                Ok(())
            })?;
            row.push(format!("{:.1} %", 100.0 * test.accuracy(&network, Deep::forward)?));
            if *activation == Activation::Relu {
                chart = chart.series(*rule, curve);
            }
        }
        rows.push(std::array::from_fn::<_, 4, _>(|i| row[i].clone()));
    }
    let title = format!("accuracy, test, after {} steps", args.steps);
    table(out, [&title, names[0], names[1], names[2]], rows)?;
    save(args.pictures.as_deref(), "initialization-loss.svg", &chart)
}

/// A row for every third layer, a column for each way.
fn by_layer(out: &mut dyn Write, title: &str, names: [&str; 3], columns: &[Vec<f64>]) -> Result<()> {
    let rows = (0..LAYERS).step_by(3).map(|layer| {
        let [a, b, c] = [0, 1, 2].map(|column| format!("{:.0e}", columns[column][layer]));
        [(layer + 1).to_string(), a, b, c]
    });
    table(out, [title, names[0], names[1], names[2]], rows.collect())
}

/// LeNet-5 on the embedded digits, with each activation.
fn lenet(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let first = open("digits", &Source::default())?.train.get(0)?.image;
    let mut chart = Lines::new("LeNet-5 on the digits", "step", "loss, mean of ten steps");
    let mut rows = Vec::new();
    for (name, activation) in ACTIVATIONS {
        device.seed(0);
        let network = create("lenet5", &Options { activation: Some(activation), ..Options::default() }, device)?;
        let input = preprocess(&network.preprocessing(), network.input(), &first);
        let [digits, test] = Images::digits(usize::MAX, &input, device)?;
        let plan = Plan { steps: args.steps, batch: 32, rate: 0.02, momentum: 0.9, weight_decay: 0.0 };
        let (mut curve, mut sum, mut accuracies) = (Vec::new(), 0.0, Vec::new());
        train(
            network,
            |network, images| network.forward(images),
            &digits,
            plan,
            |step, loss, network| {
                sum += loss;
                if step % 10 == 0 {
                    curve.push((step as f64, std::mem::take(&mut sum) / 10.0));
                }
                if step == args.steps / 6 || step == args.steps {
                    accuracies.push(100.0 * test.accuracy(network, |network, images| network.forward(images))?);
                }
                Ok(())
            },
        )?;
        let [early, late] = [accuracies.first(), accuracies.last()].map(|it| format!("{:.1} %", it.unwrap_or(&0.0)));
        rows.push([name.to_owned(), early, late]);
        chart = chart.series(name, curve);
    }
    let after = |steps: usize| format!("after {steps} steps");
    let [early, late] = [after(args.steps / 6), after(args.steps)];
    table(out, ["LeNet-5, accuracy on the test digits", &early, &late], rows)?;
    save(args.pictures.as_deref(), "activations-lenet.svg", &chart)
}

/// Writes a chart to the folder of pictures, if there is one.
pub fn save(folder: Option<&Path>, name: &str, chart: &impl Chart) -> Result<()> {
    let Some(folder) = folder else { return Ok(()) };
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join(name);
    std::fs::write(&path, chart.svg()?).with_context(|| format!("writing {}", path.display()))
}
