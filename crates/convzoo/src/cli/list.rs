use std::process::ExitCode;

use anyhow::{Result, bail};
use burn::tensor::Device;
use convzoo::{Options, create, published, variants};
use serde::Serialize;

use super::output::{print, print_json, short, table, thousands};

/// Arguments of `list`.
#[derive(clap::Args)]
pub struct Args {
    /// Show only names that contain this; `*` stands for anything
    pattern: Option<String>,
    /// Show only this family
    #[arg(long)]
    family: Option<String>,
    /// Show only networks of at most this many parameters (5e6, 5000000)
    #[arg(long, value_name = "N")]
    max_params: Option<f64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    weights: Vec<&'static str>,
}

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
    let device = Device::default();
    let mut rows = Vec::new();
    for variant in variants() {
        let named = args.pattern.as_ref().is_none_or(|pattern| matches(pattern, variant.name));
        if !named || args.family.as_ref().is_some_and(|family| family != variant.family) {
            continue;
        }
        let network = create(variant.name, &Options::default(), &device)?;
        let summary = network.summary(variant.input)?;
        if args.max_params.is_some_and(|most| summary.params as f64 > most) {
            continue;
        }
        rows.push(Row {
            name: variant.name,
            family: variant.family,
            year: variant.year,
            params: summary.params,
            macs: summary.macs,
            input: variant.input,
            classes: variant.classes,
            paper: variant.paper,
            weights: published(variant.name).map(|weights| weights.name).collect(),
        });
    }
    if args.json {
        print_json(&rows)?;
    } else if rows.is_empty() {
        bail!("no network is like that; `convzoo list` shows them all");
    } else {
        let cells = rows.iter().map(|row| {
            let [channels, height, width] = row.input;
            vec![
                row.name.to_owned(),
                row.family.to_owned(),
                row.year.to_string(),
                thousands(row.params),
                short(row.macs),
                format!("{channels}x{height}x{width}"),
                row.classes.to_string(),
                row.paper.to_owned(),
            ]
        });
        let header = ["name", "family", "year", "parameters", "multiply-adds", "input", "classes", "paper"];
        print(&table(&header, &[3, 4, 6], cells.collect()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether `name` contains `pattern`, whose parts between `*` come in this order.
fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = name;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}
