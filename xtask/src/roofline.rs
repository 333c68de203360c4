//! What a pass of a network takes, beside what it would take at the machine's peak.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use convzoo_report::{Bars, Chart};
use serde_json::Value;

use crate::bench::{digits, release};
use crate::{root, write_between, write_whole};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// The networks [default: eight of torchvision's]
    models: Vec<String>,
    /// Images per batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Seconds of readings for each network
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
    /// A convzoo that is built already [default: one built in release mode]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

const MODELS: [&str; 8] =
    ["alexnet", "vgg16", "googlenet", "resnet18", "resnet50", "densenet121", "squeezenet1_1", "inception_v3"];

/// Between these lines of the page stands what the chore has written.
const BETWEEN: [&str; 2] = ["<!-- written by `cargo xtask roofline` from here -->", "<!-- to here -->"];

/// What stages are grouped by: a column's title, and how the kinds begin that it holds. The last holds all others.
const KINDS: [(&str, &str); 6] = [
    ("Winograd", "Winograd"),
    ("direct 1×1", "direct 1×1"),
    ("direct, larger", "direct"),
    ("first layer", "planar"),
    ("linear", "linear"),
    ("pooling", "pooling"),
];
const OTHERS: &str = "others";

/// Measures, and writes the page's tables and its chart.
pub fn run(args: &Args) -> Result<()> {
    let models = match args.models.as_slice() {
        [] => MODELS.map(str::to_owned).to_vec(),
        models => models.to_vec(),
    };
    let mut bench = Command::new(args.binary.clone().map_or_else(|| release(&[]), Ok)?);
    let (batch, seconds) = (args.batch.to_string(), args.seconds.to_string());
    bench.arg("bench").args(&models).args(["--device", "flex", "--batch", &batch, "--seconds", &seconds]);
    let output = bench.args(["--profile", "--json"]).stderr(Stdio::inherit()).output().context("starting convzoo")?;
    ensure!(output.status.success(), "{bench:?} ended with {}", output.status);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).context("reading what convzoo bench printed")?;
    let networks = rows.iter().map(Network::read).collect::<Result<Vec<_>>>()?;

    let docs = root().join("docs/src");
    let title = format!("Billions of operations in a second, batch {}", args.batch);
    let bars = Bars::new(title, "two for each multiply-add of the definition", ["measured", "at the peak"]);
    let bars = networks.iter().fold(bars, |bars, network| {
        bars.group(&network.name, [network.ms, network.least_ms].map(|ms| Some(network.gflop / ms * 1e3)))
    });
    write_whole(&docs.join("figures/roofline.svg"), &bars.svg().context("drawing the chart")?)?;
    let text = conditions(&rows, args.batch)? + &times(&networks) + &kinds(&networks);
    write_between(&docs.join("kernels.md"), BETWEEN, &text)
}

/// A network's pass; its times are the least of all readings, as the peak is the best.
struct Network {
    name: String,
    ms: f64,
    least_ms: f64,
    /// Billions of operations by definition.
    gflop: f64,
    /// Milliseconds of all that is counted and of all that is done, at the peak.
    counted_ms: f64,
    done_ms: f64,
    stages: Vec<Stage>,
    weights_gbs: f64,
}

struct Stage {
    kind: String,
    ms: f64,
    least_ms: f64,
}

impl Network {
    fn read(row: &Value) -> Result<Self> {
        let name = row["model"].as_str().unwrap_or_default().to_owned();
        if let Some(error) = row["error"].as_str() {
            anyhow::bail!("{name}: {error}");
        }
        let figure = |of: &Value, what: &str| {
            of[what].as_f64().with_context(|| format!("{name} has no figure '{what}': is it fused?"))
        };
        let layers = row["layers"].as_array().context("there is no profile")?;
        let stages = layers.iter().map(|layer| {
            Ok(Stage {
                kind: layer["kind"].as_str().unwrap_or_default().to_owned(),
                // What follows the last stage has a median alone.
                ms: figure(layer, if layer["min_ms"].is_null() { "median_ms" } else { "min_ms" })?,
                least_ms: layer["least_ms"].as_f64().unwrap_or(0.0),
            })
        });
        let stages = stages.collect::<Result<Vec<_>>>()?;
        let total = |what: &str| layers.iter().filter_map(|layer| layer[what].as_f64()).sum::<f64>();
        let peak = figure(&row["peak"], "gflops")?;
        Ok(Self {
            ms: figure(row, "min_ms")?,
            least_ms: total("least_ms"),
            gflop: 2e-9 * total("macs"),
            counted_ms: 2e-6 * total("macs") / peak,
            done_ms: 2e-6 * total("multiplications") / peak,
            stages,
            weights_gbs: figure(&row["peak"], "weights_gbs")?,
            name,
        })
    }

    /// Measured and least milliseconds of the stages of a kind.
    fn of(&self, column: usize) -> [f64; 2] {
        let held = |stage: &&Stage| KINDS.iter().position(|(_, begin)| stage.kind.starts_with(begin));
        let stages = self.stages.iter().filter(|stage| held(stage).unwrap_or(KINDS.len()) == column);
        stages.fold([0.0; 2], |[ms, least], stage| [ms + stage.ms, least + stage.least_ms])
    }
}

/// What was measured on, and the machine's peak.
fn conditions(rows: &[Value], batch: usize) -> Result<String> {
    let first = rows.first().context("nothing was measured")?;
    let range = |what: &str| {
        let figures = rows.iter().filter_map(|row| row["peak"][what].as_f64());
        let (low, high) = figures.fold((f64::MAX, 0.0), |(low, high): (f64, f64), x| (low.min(x), high.max(x)));
        format!("{low:.0} to {high:.0}")
    };
    Ok(format!(
        "\n- {}, {} threads, batch {batch}\n- Peak: {:.0} GFLOP/s; weights are read at {} GB/s, activations at {}\n\n",
        first["machine"].as_str().unwrap_or_default(),
        first["threads"],
        first["peak"]["gflops"].as_f64().unwrap_or(f64::NAN),
        range("weights_gbs"),
        range("values_gbs"),
    ))
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rule = format!("| --- |{}\n", " --: |".repeat(header.len() - 1));
    let lines = rows.map(|cells| format!("| {} |\n", cells.join(" | ")));
    format!("| {} |\n{rule}{}\n", header.join(" | "), lines.collect::<String>())
}

/// Of each network: the time measured and at the peak.
fn times(networks: &[Network]) -> String {
    let header = [
        "network",
        "GFLOP",
        "ms",
        "all multiply-adds at the peak",
        "those that are done",
        "at least",
        "at least / ms",
        "GFLOP/s",
        "weights, GB/s",
    ];
    let rows = networks.iter().map(|network| {
        vec![
            network.name.clone(),
            digits(network.gflop),
            digits(network.ms),
            digits(network.counted_ms),
            digits(network.done_ms),
            digits(network.least_ms),
            format!("{:.2}", network.least_ms / network.ms),
            digits(network.gflop / network.ms * 1e3),
            digits(network.weights_gbs),
        ]
    });
    table(&header, rows)
}

/// Of each network: the time of each kind of stage, and its least.
fn kinds(networks: &[Network]) -> String {
    let titles = KINDS.iter().map(|(title, _)| *title).chain([OTHERS]);
    let header: Vec<_> = ["network"].into_iter().chain(titles).collect();
    let rows = networks.iter().map(|network| {
        let cells = (0..=KINDS.len()).map(|column| match network.of(column) {
            [0.0, _] => String::new(),
            [ms, least] => format!("{} / {}", digits(ms), digits(least)),
        });
        [network.name.clone()].into_iter().chain(cells).collect()
    });
    format!("Milliseconds of each kind of stage, and at least:\n\n{}", table(&header, rows))
}
