//! One file per command.

mod bench;
mod claim;
mod convert;
mod devices;
mod embed;
mod eval;
mod forward;
mod images;
mod list;
mod output;
mod predict;
mod runs;
mod select;
mod serve;
mod shape;
mod signals;
mod summary;
#[cfg(unix)]
mod terminal;
mod train;
mod visualize;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The classic convolutional networks on every Burn backend.
#[derive(Parser)]
#[command(name = "convzoo", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the networks: family, year, parameters, multiply-adds, input size
    List(list::Args),
    /// Show a network layer by layer: shapes, parameters, multiply-adds, receptive fields, memory
    Summary(summary::Args),
    /// Train a network; without arguments LeNet-5 on the embedded digits
    Train(Box<train::Args>),
    /// List training runs, or compare some
    Runs(runs::Args),
    /// Measure a network on a data set
    Eval(eval::Args),
    /// Classify images
    Predict(predict::Args),
    /// Visualize a network: features, filters, deconvnet, Grad-CAM, saliency, occlusion
    Visualize(Box<visualize::Args>),
    /// Write the penultimate features of images
    Embed(embed::Args),
    /// Run tensors through a network
    Forward(forward::Args),
    /// Read weights in one format and write them in another
    Convert(convert::Args),
    /// Measure speed and memory: networks on devices, at batch sizes, in inference and training
    Bench(Box<bench::Args>),
    /// Measure one network on one device for `bench`, which asks on standard input
    #[command(hide = true)]
    BenchWorker,
    /// Convolution arithmetic: the output size of a sliding window, and the padding that keeps a size
    Shape(shape::Args),
    /// Show what this build can run on, and what is present
    Devices(devices::Args),
    /// Offer devices to other machines, which name them ws://HOST:PORT
    Serve(serve::Args),
}

/// Runs the command that was asked for.
pub fn run() -> ExitCode {
    // Steps of training free and ask for the same memory over and over.
    convzoo_kernels::keep_freed_memory();
    let result = match Cli::parse().command {
        Command::List(args) => list::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Visualize(args) => visualize::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Forward(args) => forward::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchWorker => bench::worker::run(),
        Command::Shape(args) => shape::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Serve(args) => serve::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::tell(&format!("error: {}", output::told(&error)));
            ExitCode::FAILURE
        }
    }
}
