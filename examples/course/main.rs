//! The course on convolutional networks: each page of `docs/src/course` shows what the section of its name prints.
//!
//! `cargo run --release --example course -- padding`; without a section, all that train no network.

mod activations;
mod alexnet;
mod batch_norm;
mod channels;
mod compress;
mod dense;
mod depth;
mod dropout;
mod edges;
mod fractal;
mod googlenet;
mod hog;
mod inception;
mod networks;
mod normalization;
mod one_by_one;
mod padding;
mod photograph;
mod pooling;
mod receptive;
mod residual;
mod resnext;
mod show;
mod squeeze;
mod stochastic_depth;
mod stride;
mod training;
mod transfer;
mod wide;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use convzoo::device;

/// What the command line asks for.
#[derive(Parser)]
#[command(name = "course", about = "The course on convolutional networks, section by section")]
pub struct Arguments {
    /// The section [default: all that train no network]
    #[command(subcommand)]
    section: Option<Section>,
}

#[derive(Subcommand)]
enum Section {
    /// Edges, found by a filter of nine fixed numbers and then by a learned one
    Edges(edges::Args),
    /// Valid, same and full padding, and what they do to the rim
    Padding,
    /// Windows further apart, and output sizes by formula and by running
    Stride(stride::Args),
    /// Several channels, several filters, and their parameters
    Channels(channels::Args),
    /// Maximum and mean, forward and backward
    Pooling(pooling::Args),
    /// LeNet-5's shapes, values and parameters
    Lenet,
    /// Where the parameters and the multiply-adds of classic networks are
    Networks,
    /// A 1×1 convolution as a fully-connected layer at every pixel, and global average pooling
    OneByOne,
    /// What 1×1 reduction saves in an Inception module
    Inception,
    /// Batch normalization by hand and by the layer
    BatchNorm(Pictures),
    /// Activations, their derivatives, and vanishing gradients
    Activations(activations::Args),
    /// What initial weights do to values and gradients
    Initialization(activations::InitializationArgs),
    /// Why batch norm helps, and its relatives
    WhyBatchNorm(normalization::Args),
    /// Dropout and weight decay
    Dropout(dropout::Args),
    /// Blocks that are the identity, and gradients with and without shortcuts
    Residual(Pictures),
    /// Residual blocks that are left out at random in training
    StochasticDepth(stochastic_depth::Args),
    /// Depth without shortcuts, by paths of many lengths
    Fractal(fractal::Args),
    /// What width costs beside depth
    Wide(wide::Args),
    /// Convolutions in groups
    Resnext(resnext::Args),
    /// Fire modules, and AlexNet's accuracy with a fiftieth of its parameters
    Squeeze(Pictures),
    /// Deep Compression of LeNet-5, step by step
    Compress(compress::Args),
    /// AlexNet's response normalization, memory, and one tower
    Alexnet(Pictures),
    /// GoogLeNet's table beside the paper's
    Googlenet,
    /// Receptive fields by formula and by gradient
    Receptive(receptive::Args),
    /// Hand-made features and a linear classifier beside LeNet-5
    Hog(hog::Args),
    /// Plain and residual networks of growing depth, trained one after another (minutes)
    Depth(depth::Args),
    /// Dense connectivity
    Dense,
    /// A photograph as training sees it
    Augment(photograph::Args),
    /// The ten crops of a photograph
    TenCrop(photograph::Args),
    /// What is trained when a network changes its task
    Transfer(Pictures),
}

#[derive(clap::Args, Default)]
struct Pictures {
    /// Write pictures to this folder
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

/// Runs what `arguments` ask for, and writes what it has to say to `out`.
pub fn run(arguments: Arguments, out: &mut dyn Write) -> Result<()> {
    use Section::*;
    let device = device::open("flex")?;
    let sections = match arguments.section {
        Some(section) => vec![section],
        None => vec![
            Edges(edges::Args::default()),
            Padding,
            Stride(stride::Args::default()),
            Channels(channels::Args::default()),
            Pooling(pooling::Args::default()),
            Lenet,
            Networks,
            OneByOne,
            Inception,
            Activations(activations::Args::default()),
            Initialization(activations::InitializationArgs::default()),
            BatchNorm(Pictures::default()),
            WhyBatchNorm(normalization::Args::default()),
            Dropout(dropout::Args::default()),
            Residual(Pictures::default()),
            StochasticDepth(stochastic_depth::Args::default()),
            Fractal(fractal::Args::default()),
            Wide(wide::Args::default()),
            Resnext(resnext::Args::default()),
            Squeeze(Pictures::default()),
            Compress(compress::Args::default()),
            Alexnet(Pictures::default()),
            Googlenet,
            Receptive(receptive::Args::default()),
            Hog(hog::Args::default()),
            Dense,
            Transfer(Pictures::default()),
        ],
    };
    for section in sections {
        match section {
            Edges(args) => edges::run(&args, out, &device),
            Padding => padding::run(out, &device),
            Stride(args) => stride::run(&args, out, &device),
            Channels(args) => channels::run(&args, out, &device),
            Pooling(args) => pooling::run(&args, out, &device),
            Lenet => networks::lenet(out, &device),
            Networks => networks::shares(out, &device),
            OneByOne => one_by_one::run(out, &device),
            Inception => inception::run(out, &device),
            BatchNorm(Pictures { pictures }) => batch_norm::run(pictures.as_deref(), out, &device),
            Activations(args) => activations::run(&args, out, &device),
            Initialization(args) => activations::initialization(&args, out, &device),
            WhyBatchNorm(args) => normalization::run(&args, out, &device),
            Dropout(args) => dropout::run(&args, out, &device),
            Residual(Pictures { pictures }) => residual::run(pictures.as_deref(), out, &device),
            StochasticDepth(args) => stochastic_depth::run(&args, out, &device),
            Fractal(args) => fractal::run(&args, out, &device),
            Wide(args) => wide::run(&args, out, &device),
            Resnext(args) => resnext::run(&args, out, &device),
            Squeeze(Pictures { pictures }) => squeeze::run(pictures.as_deref(), out, &device),
            Compress(args) => compress::run(&args, out, &device),
            Alexnet(Pictures { pictures }) => alexnet::run(pictures.as_deref(), out, &device),
            Googlenet => googlenet::run(out, &device),
            Receptive(args) => receptive::run(&args, out, &device),
            Hog(args) => hog::run(&args, out, &device),
            Depth(args) => depth::run(&args, out),
            Dense => dense::run(out, &device),
            Augment(args) => photograph::augment(&args, out),
            TenCrop(args) => photograph::ten_crops(&args, out),
            Transfer(Pictures { pictures }) => transfer::run(pictures.as_deref(), out, &device),
        }?;
    }
    Ok(())
}

fn main() -> Result<()> {
    run(Arguments::parse(), &mut io::stdout().lock())
}
