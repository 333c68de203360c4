use std::process::ExitCode;

use anyhow::{Result, bail};
use burn::tensor::Device;
use convzoo::{Options, Variant, create, published, variants};
use serde::Serialize;

use super::names::FAMILIES;
use super::output::{FormatArgs, by, cell, fitted, print, short, thousands};
use super::select::host;

/// Arguments of `list`.
#[derive(clap::Args)]
pub struct Args {
    /// Show only names that contain this or, with `*` for anything and `?` for a character, that are like this
    pattern: Option<String>,
    /// Show only this family
    #[arg(long, value_parser = FAMILIES, hide_possible_values = true)]
    family: Option<String>,
    /// Show only networks of at most this many parameters (5e6, 5000000)
    #[arg(long, value_name = "N")]
    max_params: Option<f64>,
    /// Show only networks of at most this many multiply-adds for an image (1e9)
    #[arg(long, value_name = "N")]
    max_macs: Option<f64>,
    /// Show only networks with published weights that are right on at least so many per cent of ImageNet's validation
    /// images
    #[arg(long, value_name = "PERCENT")]
    min_top1: Option<f64>,
    /// Show only networks with published weights
    #[arg(long)]
    pretrained: bool,
    /// Sort by this: the highest accuracy first, of all else the smallest
    #[arg(long, value_name = "COLUMN")]
    sort: Option<Column>,
    #[command(flatten)]
    format: FormatArgs,
}

/// What networks are sorted by.
#[derive(clap::ValueEnum, Clone, Copy)]
enum Column {
    Name,
    Year,
    Params,
    Macs,
    Top1,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    family: &'static str,
    year: u16,
    params: usize,
    macs: usize,
    input: [usize; 3],
    classes: usize,
    paper: &'static str,
    /// The names of the published weights.
    weights: Vec<&'static str>,
    /// The best top-1 accuracy of the published weights, in percent.
    top1: Option<f64>,
    /// Of all tensors in 32 bits: the size of a file of weights but for some names.
    bytes: usize,
}

impl Row {
    /// Without drawing a weight.
    fn new(variant: &'static Variant, device: &Device) -> Result<Self> {
        let network = create(variant.name, &Options::default(), device)?;
        let summary = network.summary(variant.input)?;
        let values: usize = network.state().iter().map(|entry| entry.shape.iter().product::<usize>()).sum();
        Ok(Self {
            name: variant.name,
            family: variant.family,
            year: variant.year,
            params: summary.params,
            macs: summary.macs,
            input: variant.input,
            classes: variant.classes,
            paper: variant.paper,
            weights: published(variant.name).map(|weights| weights.name).collect(),
            top1: published(variant.name).map(|weights| weights.top1).max_by(f64::total_cmp),
            bytes: values * size_of::<f32>(),
        })
    }

    fn cells(&self) -> Vec<String> {
        let top1 = self.top1.map(|top1| format!("{top1:.2}"));
        let size = (!self.weights.is_empty()).then(|| format!("{:.1} MB", self.bytes as f64 / 1e6));
        vec![
            self.name.to_owned(),
            self.family.to_owned(),
            self.year.to_string(),
            thousands(self.params),
            short(self.macs),
            by(&self.input),
            top1.unwrap_or_default(),
            size.unwrap_or_default(),
        ]
    }

    /// Its [`COLUMNS`].
    fn record(&self) -> [String; COLUMNS.len()] {
        [
            self.name.to_owned(),
            self.family.to_owned(),
            self.year.to_string(),
            self.params.to_string(),
            self.macs.to_string(),
            by(&self.input),
            self.classes.to_string(),
            cell(self.top1),
            self.bytes.to_string(),
            self.weights.join(" "),
            self.paper.to_owned(),
        ]
    }
}

/// Columns of `--csv`, in the order of use; names of weights with spaces between.
const COLUMNS: [&str; 11] =
    ["name", "family", "year", "params", "macs", "input", "classes", "top1", "bytes", "weights", "paper"];

impl Args {
    fn wants(&self, row: &Row) -> bool {
        let at_most = |most: Option<f64>, value: usize| most.is_none_or(|most| value as f64 <= most);
        at_most(self.max_params, row.params)
            && at_most(self.max_macs, row.macs)
            && self.min_top1.is_none_or(|least| row.top1.is_some_and(|top1| top1 >= least))
            && !(self.pretrained && row.weights.is_empty())
    }
}

fn sort(rows: &mut [Row], column: Column) {
    match column {
        Column::Name => rows.sort_by_key(|row| row.name),
        Column::Year => rows.sort_by_key(|row| row.year),
        Column::Params => rows.sort_by_key(|row| row.params),
        Column::Macs => rows.sort_by_key(|row| row.macs),
        Column::Top1 => rows.sort_by(|a, b| b.top1.unwrap_or(0.0).total_cmp(&a.top1.unwrap_or(0.0))),
    }
}

pub const EXAMPLES: &str = "Examples:
  convzoo list 'resnet*'
  convzoo list --family densenet --max-params 8e6
  convzoo list --max-params 1e7 --max-macs 1e9             what fits a budget
  convzoo list --csv > networks.csv";

/// Lists what the registry has, measured by a pass on shapes alone.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(family) = &args.family
        && !variants().any(|variant| variant.family == family)
    {
        let mut families: Vec<_> = variants().map(|variant| variant.family).collect();
        families.sort();
        families.dedup();
        bail!("there is no family '{family}'; there are {}", families.join(", "));
    }
    let device = host()?;
    let mut rows = Vec::new();
    for variant in variants() {
        let named = args.pattern.as_ref().is_none_or(|pattern| matches(pattern, variant.name));
        if !named || args.family.as_ref().is_some_and(|family| family != variant.family) {
            continue;
        }
        let row = Row::new(variant, &device)?;
        if args.wants(&row) {
            rows.push(row);
        }
    }
    if let Some(column) = args.sort {
        sort(&mut rows, column);
    }
    args.format.print(&rows, COLUMNS, rows.iter().map(Row::record), || {
        if rows.is_empty() {
            bail!("no network is like that; `convzoo list` shows them all");
        }
        let header = ["name", "family", "year", "parameters", "multiply-adds", "input", "top-1", "weights"];
        print(&fitted(&header, &[3, 4, 6, 7], &[5, 1], rows.iter().map(Row::cells).collect()))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a text is a pattern of names, not a name or a part of one.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether `name` is like `pattern` or, where that is none, contains it.
pub fn matches(pattern: &str, name: &str) -> bool {
    match glob::Pattern::new(pattern) {
        Ok(pattern) if is_pattern(pattern.as_str()) => pattern.matches(name),
        _ => name.contains(pattern),
    }
}
