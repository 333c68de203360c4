//! Speed, alone and against other programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::backends::libtorch;
use crate::{cargo, cargo_executable, goldens, root, succeed, write_between};

/// What the chore is asked.
#[derive(clap::Args)]
pub struct Args {
    /// Measure PyTorch, ONNX Runtime and OpenVINO by turns with convzoo, and write docs/src/benchmarks.md
    #[arg(long)]
    peers: bool,
    /// The networks, with --peers [default: ten of torchvision's]
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "peers")]
    models: Vec<String>,
    /// Only the sections whose title contains this, with --peers
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, requires = "peers")]
    group: String,
    /// Seconds of readings for each measurement, with --peers
    #[arg(long, value_name = "S", default_value_t = 1.5, requires = "peers")]
    seconds: f64,
    /// Measure libtorch through Burn too, with --peers, by another convzoo, which is built with the feature `tch` unless a
    /// file is named
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, requires = "peers")]
    tch: Option<Option<PathBuf>>,
    /// A convzoo that is built already [default: one built in release mode]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// A Python that has the peers [default: one set up in .venv]
    #[arg(long, value_name = "FILE", requires = "peers")]
    python: Option<PathBuf>,
    /// Passed on to `convzoo bench`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, conflicts_with = "peers")]
    arguments: Vec<String>,
}

const MODELS: [&str; 10] = [
    "alexnet",
    "vgg11",
    "vgg16",
    "googlenet",
    "inception_v3",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "squeezenet1_1",
    "densenet121",
];

/// What training is measured on.
const TRAINED: [&str; 6] = ["resnet18", "resnet50", "vgg11_bn", "densenet121", "googlenet", "squeezenet1_1"];

/// Depthwise and grouped convolutions, gates, and layer norms.
const MODERN: [&str; 6] =
    ["mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny"];

/// What bfloat16 and int8 are measured on.
const NARROW: [&str; 8] =
    ["resnet18", "resnet50", "vgg16", "densenet121", "squeezenet1_1", "googlenet", "inception_v3", "mobilenet_v2"];

/// Networks for small images; `cifar.py` has them in PyTorch.
const CIFAR: [&str; 5] = ["resnet20_cifar", "resnet56_cifar", "wide_resnet28_10", "densenet40_k12", "nin_cifar"];

/// What the peers are, besides the torch and torchvision that the goldens are made with.
const PEERS: [&str; 5] = ["onnx==1.23.2", "onnxruntime==1.31.1", "openvino==2026.4.1", "nncf==3.4.0", "tract==0.23.9"];

/// Measurements that share a heading on the page.
struct Group {
    title: &'static str,
    /// The networks, unless others are asked for; none for those of [`MODELS`].
    models: &'static [&'static str],
    options: &'static [&'static str],
    /// Whether slow devices take part: ndarray, and flex on Burn's own operations.
    slow: bool,
    peers: &'static [&'static str],
}

const GROUPS: [Group; 12] = [
    Group {
        title: "Inference, one image",
        models: &[],
        options: &["--mode", "infer", "--batch", "1"],
        slow: true,
        peers: &["pytorch", "onnxruntime", "openvino", "tract"],
    },
    Group {
        title: "Inference, eight images",
        models: &[],
        options: &["--mode", "infer", "--batch", "8"],
        slow: false,
        peers: &["pytorch", "onnxruntime", "openvino"],
    },
    Group {
        title: "Training, eight images",
        models: &TRAINED,
        options: &["--mode", "train", "--batch", "8"],
        slow: false,
        peers: &["pytorch"],
    },
    Group {
        title: "Training in bfloat16, eight images",
        models: &TRAINED,
        options: &["--mode", "train", "--batch", "8", "--precision", "f32,bf16"],
        slow: false,
        peers: &["pytorch"],
    },
    Group {
        title: "Mobile and modern networks: inference, one image",
        models: &MODERN,
        options: &["--mode", "infer", "--batch", "1"],
        slow: false,
        peers: &["pytorch", "onnxruntime"],
    },
    Group {
        title: "Mobile and modern networks: inference, eight images",
        models: &MODERN,
        options: &["--mode", "infer", "--batch", "8"],
        slow: false,
        peers: &["pytorch", "onnxruntime"],
    },
    Group {
        title: "Mobile and modern networks: training, eight images",
        models: &MODERN,
        options: &["--mode", "train", "--batch", "8"],
        slow: false,
        peers: &["pytorch"],
    },
    Group {
        title: "Narrow numbers: inference, one image",
        models: &NARROW,
        options: &["--mode", "infer", "--batch", "1", "--precision", "f32,bf16,int8"],
        slow: false,
        peers: &["onnxruntime", "openvino"],
    },
    Group {
        title: "Narrow numbers: inference, eight images",
        models: &NARROW,
        options: &["--mode", "infer", "--batch", "8", "--precision", "f32,bf16,int8"],
        slow: false,
        peers: &["onnxruntime", "openvino"],
    },
    Group {
        title: "Training, CIFAR's networks",
        models: &CIFAR,
        options: &["--mode", "train", "--batch", "128"],
        slow: false,
        peers: &["pytorch"],
    },
    Group {
        title: "Training, LeNet-5",
        models: &["lenet5"],
        options: &["--mode", "train", "--batch", "128"],
        slow: false,
        peers: &["pytorch"],
    },
    // Small enough for the slowest backend to learn from in seconds, and large enough for every network here.
    Group {
        title: "Training, two small images",
        models: &[],
        options: &["--mode", "train", "--batch", "2", "--input", "3x80x80"],
        slow: true,
        peers: &["pytorch"],
    },
];

/// A measurement that takes longer than these seconds, from the start of its process to its last reading, is given up.
const TIMEOUT: &str = "900";

/// Between these lines of the page stands what the chore has written.
const BEGIN: &str = "<!-- written by `cargo xtask bench --peers` from here -->";
const END: &str = "<!-- to here -->";

/// Runs `convzoo bench`, or all peers.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.peers {
        return peers(args).map(|()| ExitCode::SUCCESS);
    }
    let mut command = Command::new(args.binary.clone().map_or_else(|| release(&[]), Ok)?);
    let status = command.arg("bench").args(&args.arguments).status().context("starting convzoo")?;
    // What went wrong has been told.
    Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
}

/// The program, built in release mode.
pub fn release(options: &[&str]) -> Result<PathBuf> {
    cargo_executable(cargo(["build", "--release"])?.args(options), "convzoo")
}

/// The program on libtorch, built in release mode beside the other.
fn release_tch(environment: &[(&str, String)]) -> Result<PathBuf> {
    let mut build = cargo(["build", "--release", "--features", "tch", "--target-dir", "target/tch"])?;
    cargo_executable(build.envs(environment.iter().cloned()), "convzoo")
}

fn peers(args: &Args) -> Result<()> {
    let titles = GROUPS.map(|group| group.title);
    let known = titles.iter().any(|title| title.contains(&args.group));
    ensure!(known, "no section's title contains '{}'; they are {}", args.group, titles.join("; "));
    let python = match &args.python {
        Some(python) => python.clone(),
        None => {
            let python = goldens::python()?;
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            succeed(Command::new(&python).args(install).args(PEERS)).context("installing the peers")?;
            python
        }
    };
    let binary = args.binary.clone().map_or_else(|| release(&["--features", "ndarray"]), Ok)?;
    // A program of its own, so that the others are not as large as libtorch.
    let (tch, environment) = match &args.tch {
        None => (None, Vec::new()),
        Some(file) => {
            let environment = libtorch(python.clone())?;
            let built = file.clone().map_or_else(|| release_tch(&environment), Ok)?;
            (Some(format!("tch={} bench-worker", built.display())), environment)
        }
    };
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let (script, onnx) = (root().join("xtask/peers.py"), folder.path().join("onnx"));
    let peer = |engine: &&str| {
        let export = if *engine == "pytorch" { String::new() } else { format!(" --folder {}", onnx.display()) };
        format!("{engine}={} {} {engine}{export}", python.display(), script.display())
    };
    let seconds = args.seconds.to_string();
    let measure = |group: &Group| -> Result<Vec<Value>> {
        let mut bench = Command::new(&binary);
        bench.arg("bench").envs(environment.clone());
        match (&args.models[..], group.models) {
            ([], []) => bench.args(MODELS),
            ([], own) => bench.args(own),
            (asked, _) => bench.args(asked),
        };
        bench.args(group.options).args(["--device", if group.slow { "flex,ndarray" } else { "flex" }]);
        bench.args(["--kernels", if group.slow { "on,off" } else { "on" }]);
        bench.args(["--seconds", &seconds, "--timeout", TIMEOUT, "--json"]);
        for peer in tch.iter().cloned().chain(group.peers.iter().map(peer)) {
            bench.args(["--peer", &peer]);
        }
        let output = bench.stderr(Stdio::inherit()).output().context("starting convzoo")?;
        ensure!(output.status.success(), "{bench:?} ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("reading what convzoo bench printed")
    };

    for group in GROUPS.iter().filter(|group| group.title.contains(&args.group)) {
        eprintln!("{}", group.title);
        let rows = measure(group)?;
        let tables = [command(group.options, &rows), tables(&rows), reasons(&rows)].concat();
        // One after the other, so that a failure leaves what is measured.
        write_section(&conditions(&python, &rows, tch.is_some())?, group.title, &tables)?;
    }
    Ok(())
}

/// Replaces a group's section of the page, and the conditions before all.
fn write_section(conditions: &str, title: &str, tables: &str) -> Result<()> {
    let path = root().join("docs/src/benchmarks.md");
    let page = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let written = page.split(BEGIN).nth(1).and_then(|rest| rest.split(END).next()).unwrap_or_default();
    let old = |title: &str| {
        let sections = written.split("\n## ").skip(1);
        let mut same = sections.filter_map(|section| section.strip_prefix(title)?.strip_prefix("\n\n"));
        same.next().map(|tables| format!("{}\n", tables.trim_end()))
    };
    let mut text = conditions.to_owned();
    for group in GROUPS {
        let tables = if group.title == title { Some(tables.to_owned()) } else { old(group.title) };
        text += &tables.map_or_else(String::new, |tables| format!("\n## {}\n\n{}\n", group.title, tables.trim_end()));
    }
    write_between(&path, [BEGIN, END], &format!("{text}\n"))
}

fn command(what: &[&str], rows: &[Value]) -> String {
    let rows = rows.iter().filter(|row| row["median_ms"].is_number());
    let spread = rows.filter_map(|row| row["spread"].as_f64()).fold(0.0, f64::max);
    format!("`{}`; the largest spread of a measurement is {:.0}%.\n\n", what.join(" "), 100.0 * spread)
}

/// The machine, and the versions of all that was measured.
fn conditions(python: &Path, rows: &[Value], tch: bool) -> Result<String> {
    let versions = "import torch, torchvision, onnxruntime, openvino, tract; from importlib.metadata import version; \
         print(f'PyTorch {torch.__version__}, torchvision {torchvision.__version__}, ONNX Runtime \
         {onnxruntime.__version__}, OpenVINO {openvino.__version__.split(\"-\")[0]}, NNCF \
         {version(\"nncf\")}, tract {tract.version()}')";
    let output = Command::new(python).args(["-c", versions]).output().context("asking for the peers' versions")?;
    ensure!(output.status.success(), "a peer is missing: {}", String::from_utf8_lossy(&output.stderr));
    let lock = fs::read_to_string(root().join("Cargo.lock")).context("reading Cargo.lock")?;
    let burn = lock.split("name = \"burn\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    let rustc = Command::new("rustc").arg("--version").output().context("starting rustc")?;
    let row = rows.first().context("nothing was measured")?;
    Ok(format!(
        "\n- Machine: {}, {} threads for all\n- convzoo {} on Burn {}, {}{}\n- {}\n",
        row["machine"].as_str().unwrap_or_default(),
        row["threads"],
        env!("CARGO_PKG_VERSION"),
        burn.unwrap_or("?"),
        String::from_utf8_lossy(&rustc.stdout).trim(),
        if tch { ", libtorch of the same PyTorch" } else { "" },
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}

/// What measured a network: a device or a peer, and in which precision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Engine {
    name: String,
    precision: String,
}

impl Engine {
    fn of(row: &Value) -> Self {
        let off = if row["kernels"] == false { ", kernels off" } else { "" };
        let text = |field: &str| row[field].as_str().unwrap_or_default();
        Self { name: text("device").to_owned() + off, precision: text("precision").to_owned() }
    }

    fn heading(&self) -> String {
        if self.precision == F32 { self.name.clone() } else { format!("{}, {}", self.name, self.precision) }
    }
}

const F32: &str = "f32";

/// The different ones, in the order of the rows.
fn different<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut different = Vec::new();
    for one in all {
        if !different.contains(&one) {
            different.push(one);
        }
    }
    different
}

/// Time, memory, and times relative to peers and to f32, a network a row and an engine a column.
fn tables(rows: &[Value]) -> String {
    let measured = |row: &&Value| row["median_ms"].is_number();
    let engines = different(rows.iter().filter(measured).map(Engine::of));
    let models = different(rows.iter().filter_map(|row| row["model"].as_str()));
    let cells: BTreeMap<_, _> = rows
        .iter()
        .filter(measured)
        .map(|row| ((row["model"].as_str().unwrap_or_default(), Engine::of(row)), row))
        .collect();
    let table = |title: &str, figure: &dyn Fn(&str, &Engine, &Value) -> Option<String>| {
        let headings: Vec<_> = engines.iter().map(Engine::heading).collect();
        let mut text =
            format!("{title}\n\n| network | {} |\n| --- |{}\n", headings.join(" | "), " --: |".repeat(engines.len()));
        for model in &models {
            let figures = engines.iter().map(|engine| {
                let figure = cells.get(&(*model, engine.clone())).and_then(|row| figure(model, engine, row));
                figure.unwrap_or_else(|| "–".to_owned())
            });
            text += &format!("| {model} | {} |\n", figures.collect::<Vec<_>>().join(" | "));
        }
        text + "\n"
    };
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or(f64::NAN);
    let median = |model: &str, engine: &Engine| cells.get(&(model, engine.clone())).map(|row| number(row, "median_ms"));
    // Times as long as another engine takes, and their geometric means.
    let relative = |title: &str, other: &dyn Fn(&Engine) -> Engine| {
        let ratio = |model: &str, engine: &Engine| Some(median(model, engine)? / median(model, &other(engine))?);
        let text = table(title, &|model, engine, _| Some(format!("{:.2}", ratio(model, engine)?)));
        if models.len() < 2 {
            return text;
        }
        let means = engines.iter().map(|engine| {
            // The mean of some of the networks is not to be compared with that of all.
            let ratios: Option<Vec<_>> = models.iter().map(|model| ratio(model, engine)).collect();
            ratios.map_or_else(
                || "–".to_owned(),
                |ratios| {
                    let logarithms: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
                    format!("{:.2}", (logarithms / ratios.len() as f64).exp())
                },
            )
        });
        format!("{}\n| *geometric mean* | {} |\n\n", text.trim_end(), means.collect::<Vec<_>>().join(" | "))
    };
    let precisions = different(engines.iter().map(|engine| engine.precision.as_str()));
    let beside = |peer: &str, name: &str| {
        if !engines.iter().any(|engine| engine.name == peer) {
            return String::new();
        }
        let precision = if precisions.len() > 1 { " in the same precision" } else { "" };
        let title = format!("Times as long as {name}{precision} (below 1 is faster):");
        relative(&title, &|engine| Engine { name: peer.to_owned(), precision: engine.precision.clone() })
    };
    let narrow = match precisions.len() {
        1 => String::new(),
        _ => relative("Times as long as the same engine in f32:", &|engine| Engine {
            name: engine.name.clone(),
            precision: F32.to_owned(),
        }),
    };
    // OpenVINO is what narrow numbers are measured by.
    let openvino = if precisions.len() > 1 { beside("openvino", "OpenVINO") } else { String::new() };
    [
        table("Median milliseconds of a pass:", &|_, _, row| Some(digits(number(row, "median_ms")))),
        beside("pytorch", "PyTorch"),
        beside("onnxruntime", "ONNX Runtime"),
        openvino,
        narrow,
        table("GFLOP/s:", &|_, _, row| Some(digits(number(row, "gflops")))),
        table("Peak resident memory in MiB:", &|_, _, row| Some(format!("{:.0}", number(row, "peak_rss_mib")))),
        table("Milliseconds to load, and from then to the first result:", &|_, _, row| {
            Some(format!("{} + {}", digits(number(row, "load_ms")), digits(number(row, "first_ms"))))
        }),
    ]
    .concat()
}

/// Why there are dashes in the tables.
fn reasons(rows: &[Value]) -> String {
    let mut reasons = BTreeMap::<_, Vec<_>>::new();
    for row in rows {
        if let (Some(engine), Some(error), Some(model)) =
            (row["device"].as_str(), row["error"].as_str(), row["model"].as_str())
        {
            reasons.entry((engine, error)).or_default().push(model);
        }
    }
    let lines = reasons.iter().map(|((engine, error), models)| format!("- {engine}, {}: {error}\n", models.join(", ")));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("What is not in the tables:\n\n{lines}\n") }
}

/// Three digits that count.
pub fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
