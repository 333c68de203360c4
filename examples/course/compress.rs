//! Deep Compression by hand on twelve weights, then of LeNet-5.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use burn::train::Interrupter;
use convzoo::compress::{Archive, Codebook, Compression, Plan, Step, Tensor, Training, prune, sizes, write};
use convzoo::data::{Source, open};
use convzoo::pretrained::lenet5_digits;
use convzoo::report::Lines;
use convzoo::{Classifier, preprocess, weights};

use super::activations::save;
use super::show::{number, table, thousands};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Retrain under the mask, and fine-tune the codebooks, for so many passes over the digits each
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Write pictures to this folder
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

const WEIGHTS: [f32; 12] = [0.9, -0.1, 0.05, 0.4, -0.02, 0.0, 0.1, -0.5, 0.45, -0.05, 0.85, 0.03];

pub fn run(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    by_hand(out)?;
    lenet(args, out, device)
}

// ANCHOR: steps
/// The weights after pruning seven of twelve, then with values that two bits tell apart.
fn pruned_and_shared() -> [Vec<f32>; 2] {
    let mut pruned = WEIGHTS.to_vec();
    prune(&mut pruned, 7.0 / 12.0);
    let shared = Codebook::fit(&pruned, 2).weights();
    [pruned, shared]
}
// ANCHOR_END: steps

fn by_hand(out: &mut dyn Write) -> Result<()> {
    let [pruned, shared] = pruned_and_shared();
    let rows = (0..WEIGHTS.len()).map(|i| [i.to_string(), text(WEIGHTS[i]), text(pruned[i]), text(shared[i])]);
    table(out, ["weight", "given", "pruned", "shared"], rows.collect())?;
    let rows = gaps(&shared).into_iter().map(|(gap, weight)| [gap.to_string(), text(weight)]).collect();
    table(out, ["zeros before", "value"], rows)?;
    let file = write("", &[Tensor { name: "fc".to_owned(), shape: vec![12], values: shared.clone() }]);
    ensure!(Archive::read(file)?.values(0)? == shared, "the file gives back other weights");
    Ok(())
}

// ANCHOR: gaps
/// Each weight that is not zero, and the last, after the zeros before it. Of four zeros, one is a value itself: a
/// filler, so that two bits are enough for a gap.
fn gaps(weights: &[f32]) -> Vec<(usize, f32)> {
    let (mut pairs, mut gap) = (Vec::new(), 0);
    for (index, weight) in weights.iter().enumerate() {
        if *weight == 0.0 && gap < 3 && index + 1 < weights.len() {
            gap += 1;
        } else {
            pairs.push((gap, *weight));
            gap = 0;
        }
    }
    pairs
}
// ANCHOR_END: gaps

fn text(weight: f32) -> String {
    number(weight, 3)
}

/// LeNet-5 as it comes with convzoo, for the embedded digits.
fn lenet(args: &Args, out: &mut dyn Write, device: &Device) -> Result<()> {
    let network = lenet5_digits(&device.clone().autodiff())?;
    let data = open("digits", &Source::default())?;
    let preprocess = preprocess(&network.preprocessing(), network.input(), &data.train.get(0)?.image);
    let runs = tempfile::tempdir()?;
    let training = Training {
        data,
        preprocess,
        device: device.clone(),
        runs: runs.path().to_owned(),
        seed: 0,
        interrupter: Interrupter::new(),
    };
    let before = weights::tensors(&network)?;
    let mut compression = Compression::new(network)?.with_training(training);
    // ANCHOR: plan
    let plan = Plan { bits: Plan::of_bits(4).bits, ..Plan::of_sparsity(0.9) };
    let plan = match args.epochs {
        Some(epochs) => Plan { rounds: 3, ..plan.trained(epochs)? },
        None => plan,
    };
    compression.run(&plan)?;
    // ANCHOR_END: plan
    let raw = compression.steps().first().context("there is a first step")?.bytes;
    let row = |step: &Step| {
        let accuracy = step.accuracy.map_or(String::new(), |accuracy| format!("{:.1} %", 100.0 * accuracy));
        let (left, times) = (100.0 * step.left, raw as f64 / step.bytes as f64);
        [step.name.clone(), format!("{left:.1} %"), thousands(step.bytes), format!("{times:.1}"), accuracy]
    };
    let rows = compression.steps().iter().map(row).collect();
    table(out, ["lenet5", "weights left", "bytes", "times smaller", "accuracy"], rows)?;
    let rows = compression.tensors().iter().filter(|tensor| tensor.shape.len() > 1).map(|tensor| {
        let sizes = sizes(&tensor.values);
        let [raw, pruned, shared, coded] = [sizes.raw, sizes.pruned, sizes.shared, sizes.coded].map(thousands);
        [tensor.name.trim_end_matches(".weight").to_owned(), raw, pruned, shared, coded]
    });
    table(out, ["bytes of layer", "given", "pruned", "shared", "coded"], rows.collect())?;
    let pictures = args.pictures.as_deref();
    histogram(pictures, "compress-before.svg", "Weights of c5, given", &before)?;
    histogram(pictures, "compress-after.svg", "Weights of c5, pruned and shared", compression.tensors())
}

/// How many weights of the largest layer have which value; of those that are not zero, where some are.
fn histogram(pictures: Option<&Path>, name: &str, title: &str, tensors: &[Tensor]) -> Result<()> {
    const BINS: usize = 120;
    let c5 = tensors.iter().find(|tensor| tensor.name == "c5.weight").context("LeNet-5 has a layer c5")?;
    let left: Vec<f32> = c5.values.iter().copied().filter(|weight| *weight != 0.0).collect();
    let most = left.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
    let mut counts = [0usize; BINS];
    for weight in left {
        let place = (weight / most + 1.0) / 2.0 * BINS as f32;
        counts[(place as usize).min(BINS - 1)] += 1;
    }
    // A bar is drawn as the outline of its top and sides.
    let edge = |bin: usize| f64::from(most) * (2.0 * bin as f64 / BINS as f64 - 1.0);
    let outline = (0..BINS).flat_map(|bin| [(edge(bin), counts[bin] as f64), (edge(bin + 1), counts[bin] as f64)]);
    save(pictures, name, &Lines::new(title, "value", "weights that are not zero").series("", outline))
}
