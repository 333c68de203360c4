use std::process::ExitCode;

use anyhow::Result;
use clap::value_parser;
use convzoo::graph::arithmetic::{Padding, Slide};
use serde::Serialize;

use super::output::{print, print_json};

/// Arguments of `shape`.
#[derive(clap::Args)]
pub struct Args {
    /// Size of the input along one dimension
    #[arg(value_parser = value_parser!(u32).range(1..))]
    input: u32,
    /// Size of the kernel
    #[arg(long, short, value_name = "K", value_parser = value_parser!(u16).range(1..))]
    kernel: u16,
    /// Stride of the window
    #[arg(long, short, value_name = "S", default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    stride: u16,
    /// Zero padding on each side: valid (none), same (as many as make ⌈input / stride⌉), full, or a number
    #[arg(long, short, value_name = "P", default_value = "valid")]
    padding: Padding,
    /// Dilation: spacing between kernel elements
    #[arg(long, short, value_name = "D", default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    dilation: u16,
    /// Round the output size up, as pooling with ceil_mode does
    #[arg(long)]
    ceil: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub const EXAMPLES: &str = "Example:
  convzoo shape 224 --kernel 7 --stride 2 --padding 3";

#[derive(Serialize)]
struct Document {
    input: usize,
    output: usize,
    /// Before and after.
    padding: [usize; 2],
    /// From the kernel's first element to its last.
    reach: usize,
    /// The padding on each side that keeps a size at stride 1.
    keeping: Option<usize>,
}

/// Computes convolution arithmetic.
pub fn run(args: &Args) -> Result<ExitCode> {
    let [kernel, stride, dilation] = [args.kernel, args.stride, args.dilation].map(usize::from);
    let (slide, input) = (Slide { kernel, stride, dilation }, args.input as usize);
    if let Padding::Cells(cells) = args.padding
        && cells > usize::from(u16::MAX)
    {
        anyhow::bail!("a padding of {cells} is more than {}", u16::MAX);
    }
    let padding = slide.padding(input, args.padding);
    let output = slide.output(input, padding, args.ceil);
    let document = Document { input, output, padding, reach: slide.reach(), keeping: slide.keeping() };
    if args.json {
        print_json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let [front, back] = padding;
    let keeping = match slide.keeping() {
        Some(padding) => format!("padding {padding} keeps a size at stride 1"),
        None => "no equal padding keeps a size: the kernel reaches over an even number of cells".to_owned(),
    };
    let room = format!("({input} + {front} + {back} − {}) / {stride}", slide.reach());
    let formula = match args.ceil {
        false => format!("⌊{room}⌋ + 1"),
        true => format!("⌈{room}⌉ + 1, less a window that would start in the trailing padding"),
    };
    let output = match output {
        0 => format!("no window fits: the kernel reaches over {} cells", slide.reach()),
        output => format!("{input} → {output}   {formula}"),
    };
    print(&format!("{output}\n{keeping}"))?;
    Ok(ExitCode::SUCCESS)
}
