//! One file per command.

mod bench;
mod claim;
mod completions;
mod compress;
mod convert;
mod devices;
mod draw;
mod embed;
mod ensemble;
mod eval;
mod forward;
mod images;
mod list;
mod names;
mod output;
mod predict;
mod quantize;
mod recipes;
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

use clap::{CommandFactory, Parser, Subcommand};

const EXAMPLES: &str = "Begin with:
  convzoo train                                            LeNet-5 on handwritten digits, in seconds
  convzoo predict squeezenet1_1 photo.jpg --weights imagenet1k_v1
  convzoo list 'resnet*'
  convzoo help train";

/// The classic convolutional networks on Burn's backends.
#[derive(Parser)]
#[command(name = "convzoo", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the networks: family, year, parameters, multiply-adds, input size
    #[command(after_help = list::EXAMPLES)]
    List(list::Args),
    /// Show a network layer by layer: shapes, parameters, multiply-adds, receptive fields, memory
    #[command(after_help = summary::EXAMPLES)]
    Summary(summary::Args),
    /// Draw a network: its blocks and layers, what flows between them, and how large it is
    #[command(after_help = draw::EXAMPLES)]
    Draw(draw::Args),
    /// Train a network; without arguments LeNet-5 on the embedded digits
    #[command(after_help = train::EXAMPLES)]
    Train(Box<train::Args>),
    /// List the recipes that training goes by, or print one
    #[command(after_help = recipes::EXAMPLES)]
    Recipes(recipes::Args),
    /// List training runs, or compare some
    #[command(after_help = runs::EXAMPLES)]
    Runs(runs::Args),
    /// Measure a network on a data set
    #[command(after_help = eval::EXAMPLES)]
    Eval(eval::Args),
    /// Classify images
    #[command(after_help = predict::EXAMPLES, override_usage = "convzoo predict [OPTIONS] [MODEL] <IMAGE|DIR>...")]
    Predict(predict::Args),
    /// Visualize a network: features, filters, deconvnet, Grad-CAM, saliency, occlusion
    #[command(after_help = visualize::EXAMPLES, override_usage = "convzoo visualize [OPTIONS] --what <WHAT> [MODEL] [IMAGE|DIR]...")]
    Visualize(Box<visualize::Args>),
    /// Write the penultimate features of images
    #[command(after_help = embed::EXAMPLES, override_usage = "convzoo embed [OPTIONS] [MODEL] <IMAGE|DIR>...")]
    Embed(embed::Args),
    /// Run tensors through a network
    #[command(after_help = forward::EXAMPLES)]
    Forward(forward::Args),
    /// Read weights in one format and write them in another
    #[command(after_help = convert::EXAMPLES, override_usage = "convzoo convert [OPTIONS] [MODEL] <IN> <OUT>")]
    Convert(convert::Args),
    /// Compress weights: pruning, codebooks, Huffman codes (Deep Compression)
    #[command(after_help = compress::EXAMPLES)]
    Compress(Box<compress::Args>),
    /// Make weights bytes (int8), with scales found on images
    #[command(after_help = quantize::EXAMPLES)]
    Quantize(quantize::Args),
    /// Measure speed and memory: networks on devices, at batch sizes, in inference and training
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<bench::Args>),
    /// Measure one network on one device for `bench`, which asks on standard input
    #[command(hide = true)]
    BenchWorker,
    /// Convolution arithmetic: the output size of a sliding window, and the padding that keeps a size
    #[command(after_help = shape::EXAMPLES)]
    Shape(shape::Args),
    /// Show what this build can run on, and what is present
    Devices(devices::Args),
    /// Print a script by which a shell completes commands, options and names
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::Args),
    /// Write manual pages, for who packs the program
    #[command(hide = true)]
    Man(completions::ManArgs),
    /// Offer devices to other machines, which name them ws://HOST:PORT
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Args),
}

/// Runs the command that was asked for.
pub fn run() -> ExitCode {
    // Steps of training free and ask for the same memory over and over.
    convzoo_kernels::keep_freed_memory();
    let result = match Cli::parse().command {
        Command::List(args) => list::run(&args),
        Command::Summary(args) => summary::run(&args),
        Command::Draw(args) => draw::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Recipes(args) => recipes::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Visualize(args) => visualize::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Forward(args) => forward::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Compress(args) => compress::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchWorker => bench::worker::run(),
        Command::Shape(args) => shape::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Completions(args) => completions::run(&args, &mut Cli::command()),
        Command::Man(args) => completions::man_pages(&args, Cli::command()),
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
