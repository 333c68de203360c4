//! Measurements as tables and charts.

use anyhow::Result;
use convzoo::{published, variant};
use convzoo_report::{Bars, Chart, Lines, Page, Scatter};

use super::job::{Mode, Peak, StepTimes};
use super::row::{Change, Outcome, Row, Verdict};
use crate::cli::output::{fitted, table};

const HEADER: [&str; 11] =
    ["model", "mode", "batch", "device", "median ms", "min ms", "spread", "images/s", "GFLOP/s", "load ms", "first ms"];
/// The columns of [`HEADER`] and [`LAST`] that hold numbers.
const NUMBERS: [usize; 9] = [2, 4, 5, 6, 7, 8, 9, 10, 11];
/// Columns left out first where a terminal has no room: from load to peak.
const LESS_NEEDED: [usize; 4] = [9, 10, 11, 8];
const LAST: [&str; 2] = ["peak MiB", "note"];
const LAYERS: [&str; 7] = ["layer", "kind", "output", "ms", "at least", "share", "GFLOP/s"];
/// The parts of a training step, after the milliseconds of them all.
const STEP: [&str; 4] = ["forward", "input", "weight", "update"];
const STEP_AT: usize = 4;

fn header() -> Vec<&'static str> {
    [&HEADER[..], &LAST].concat()
}

/// What the figures mean, once for all tables.
const LEGEND: &str = "Spread is the distance between the quartiles as a share of the median. GFLOP/s count two operations \
     for each multiply-add of convolutions and linear layers, and a training step as three forward passes. Load is the time \
     until the network stands on the device, first from then to the first result. Peak is the most memory that the \
     measurement's own process held.";

/// Milliseconds with three digits that count.
fn ms(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

fn cells(row: &Row) -> Vec<String> {
    let mut cells = vec![row.model.clone(), row.mode.name().to_owned(), row.batch.to_string(), row.engine()];
    match &row.outcome {
        Outcome::Measured(figures) => cells.extend([
            ms(figures.median_ms),
            ms(figures.min_ms),
            format!("{:.1}%", 100.0 * figures.spread),
            ms(figures.images_per_second),
            ms(figures.gflops),
            ms(figures.load_ms),
            ms(figures.first_ms),
            figures.peak_rss_mib.map_or(String::new(), |mib| format!("{mib:.0}")),
            row.change.as_ref().map_or(String::new(), said),
        ]),
        Outcome::Failed { error } => {
            cells.resize(header().len() - 1, String::new());
            cells.push(error.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    cells
}

fn said(change: &Change) -> String {
    let before = ms(change.previous_ms);
    match change.verdict {
        Verdict::Faster => format!("{:.2} times as fast as before ({before} ms)", 1.0 / change.ratio),
        Verdict::Slower => format!("{:.2} times as slow as before ({before} ms)", change.ratio),
        Verdict::Same => format!("as before ({before} ms), within the noise"),
    }
}

/// A table of the parts of a pass: its header, which columns hold numbers, and its lines.
struct Layers {
    header: Vec<&'static str>,
    numbers: Vec<usize>,
    lines: Vec<Vec<String>>,
}

/// The layers of a profiled row, the slowest first; of a training step all of them together before.
fn layers(row: &Row) -> Option<Layers> {
    let profile = row.figures()?.profile.as_ref().filter(|profile| !profile.layers.is_empty())?;
    let total: f64 = profile.layers.iter().map(|layer| layer.median_ms).sum();
    let step = profile.layers.iter().any(|layer| layer.parts.is_some());
    let mut layers: Vec<_> = profile.layers.iter().collect();
    layers.sort_by(|a, b| b.median_ms.total_cmp(&a.median_ms));
    let rows = layers.into_iter().map(|layer| {
        let output: Vec<_> = layer.output.iter().map(usize::to_string).collect();
        let mut cells = vec![
            [&layer.name].into_iter().chain(&layer.with).map(String::as_str).collect::<Vec<_>>().join(" + "),
            layer.kind.clone(),
            output.join("x"),
            ms(layer.median_ms),
            layer.least_ms.map_or(String::new(), ms),
            format!("{:.1}%", 100.0 * layer.median_ms / total),
            if layer.gflops > 0.0 { ms(layer.gflops) } else { String::new() },
        ];
        if step {
            cells.splice(STEP_AT..STEP_AT, step_cells(layer.parts));
        }
        cells
    });
    let mut lines: Vec<_> = rows.collect();
    let mut header = LAYERS.to_vec();
    if step {
        header.splice(STEP_AT..STEP_AT, STEP);
        let sum =
            |of: fn(&StepTimes) -> f64| profile.layers.iter().filter_map(|layer| Some(of(layer.parts.as_ref()?))).sum();
        let all = StepTimes {
            forward_ms: sum(|times| times.forward_ms),
            input_gradient_ms: sum(|times| times.input_gradient_ms),
            weight_gradient_ms: sum(|times| times.weight_gradient_ms),
            update_ms: sum(|times| times.update_ms),
        };
        let mut cells = ["all", "", ""].map(str::to_owned).to_vec();
        cells.push(ms(total));
        cells.extend(step_cells(Some(all)));
        let least: f64 = profile.layers.iter().filter_map(|layer| layer.least_ms).sum();
        cells.extend([if least > 0.0 { ms(least) } else { String::new() }, "100.0%".to_owned(), String::new()]);
        lines.insert(0, cells);
    }
    Some(Layers { numbers: (3..header.len()).collect(), header, lines })
}

/// The parts of a step; empty where a part takes no time.
fn step_cells(times: Option<StepTimes>) -> [String; 4] {
    let Some(StepTimes { forward_ms, input_gradient_ms, weight_gradient_ms, update_ms }) = times else {
        return Default::default();
    };
    let cell = |time: f64| if time > 0.0 { ms(time) } else { String::new() };
    [forward_ms, input_gradient_ms, weight_gradient_ms, update_ms].map(cell)
}

/// What a profile's table stands under.
fn title(row: &Row) -> String {
    let pass = match row.mode {
        Mode::Infer => "a forward pass",
        Mode::Train => "a training step",
    };
    let profile = row.figures().and_then(|figures| figures.profile.as_ref());
    let parts = match profile.and_then(|profile| profile.peak) {
        Some(Peak { gflops, .. }) if row.mode == Mode::Train => format!(
            "by layer: forward, the gradients of input and of weight (of a normalization together), the optimizer's update; at \
             least: the multiply-adds of all of them at the {gflops:.0} GFLOP/s that were measured"
        ),
        Some(Peak { gflops, weights_gbs, values_gbs }) => format!(
            "by stage; at least: at the {gflops:.0} GFLOP/s that were measured, or at {weights_gbs:.0} GB/s of weights and \
             {values_gbs:.0} of activations"
        ),
        None if row.mode == Mode::Train => "forward, by layer".to_owned(),
        None => "by layer".to_owned(),
    };
    format!("{}, batch {}, on {}: {pass} {parts}", row.model, row.batch, row.engine())
}

/// A spread beyond which readings are no measurement of this program alone.
const MOST_SPREAD: f64 = 0.2;

/// What is to be said where readings differ more than those of an idle machine do.
pub fn busy(rows: &[Row]) -> Option<String> {
    let spread = |row: &Row| row.figures().map_or(0.0, |figures| figures.spread);
    let worst = rows.iter().filter(|row| spread(row) > MOST_SPREAD).max_by(|a, b| spread(a).total_cmp(&spread(b)))?;
    let (model, mode, batch, engine) = (&worst.model, worst.mode.name(), worst.batch, worst.engine());
    Some(format!(
        "the readings of {model} ({mode}, batch {batch}, {engine}) spread by {:.0}%, so something else was computing: measure \
         again on an idle machine, or longer (--seconds), before you trust these figures",
        100.0 * spread(worst)
    ))
}

fn conditions(rows: &[Row]) -> String {
    let mut said: Vec<_> = rows.iter().map(|row| format!("{}; {} threads", row.machine, row.threads)).collect();
    said.dedup();
    format!("convzoo {} on {}", env!("CARGO_PKG_VERSION"), said.join("; "))
}

/// For a terminal.
pub fn terminal(rows: &[Row]) -> String {
    let mut text = format!(
        "{}\n\n{}",
        conditions(rows),
        fitted(&header(), &NUMBERS, &LESS_NEEDED, rows.iter().map(cells).collect())
    );
    for row in rows {
        if let Some(Layers { header, numbers, lines }) = layers(row) {
            text += &format!("\n{}\n\n{}", title(row), table(&header, &numbers, lines));
        }
    }
    text
}

/// For a Markdown document.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = format!("{}.\n\n", conditions(rows));
    text += &markdown_table(&header(), &NUMBERS, rows.iter().map(cells));
    text += &format!("\n{LEGEND}\n");
    for row in rows {
        if let Some(Layers { header, numbers, lines }) = layers(row) {
            text += &format!("\n{}:\n\n{}", title(row), markdown_table(&header, &numbers, lines));
        }
    }
    text
}

fn markdown_table(header: &[&str], numbers: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rule = (0..header.len()).map(|column| if numbers.contains(&column) { "--:" } else { "---" }.to_owned());
    let head = [header.iter().map(|&name| name.to_owned()).collect(), rule.collect()];
    let lines = head.into_iter().chain(rows).map(|cells: Vec<String>| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    });
    lines.collect()
}

/// A page with charts.
pub fn page(rows: &[Row]) -> Result<Page> {
    let table: Vec<_> = rows.iter().map(cells).collect();
    let mut page = Page::new("convzoo bench").text(&conditions(rows)).table(&header(), &table).text(LEGEND);
    if let Some(note) = busy(rows) {
        page = page.text(&format!("Note: {note}."));
    }
    let charts = charts(rows)?;
    if !charts.is_empty() {
        page = page.heading("Charts");
    }
    page = page.svgs(charts.iter().map(String::as_str));
    for chart in tradeoffs(rows)? {
        page = page.svg(&chart, "Up and to the left is better. Accuracies are those published with the weights.");
    }
    for row in rows {
        if let Some(Layers { header, lines, .. }) = layers(row) {
            page = page.heading(&title(row)).table(&header, &lines);
        }
    }
    Ok(page)
}

/// The different values of what `of` says of rows, in their order.
fn distinct<T: PartialEq>(rows: &[Row], of: impl Fn(&Row) -> T) -> Vec<T> {
    let mut values = Vec::new();
    for value in rows.iter().map(of) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// The accuracy of the first weights that are published for the network, top-1 of ImageNet in per cent.
fn accuracy(row: &Row) -> Option<f64> {
    let variant = variant(&row.model).ok()?;
    // Other images or another number of classes have other accuracies.
    (row.input == variant.input).then(|| published(variant.name).next()).flatten().map(|weights| weights.top1)
}

/// Accuracy against time for each batch size at which two networks or more with published weights infer.
fn tradeoffs(rows: &[Row]) -> Result<Vec<String>> {
    let engines = distinct(rows, Row::engine);
    let mut charts = Vec::new();
    for batch in distinct(rows, |row| row.batch) {
        let of = |row: &&Row| row.mode == Mode::Infer && row.batch == batch;
        let points = rows.iter().filter(of).filter_map(|row| {
            let engine = engines.iter().position(|engine| *engine == row.engine())?;
            Some((&row.model, (row.figures()?.median_ms / batch as f64, accuracy(row)?, engine)))
        });
        let (names, points): (Vec<_>, Vec<_>) = points.unzip();
        if names.iter().any(|name| *name != names[0]) {
            let title = format!("Accuracy against time, batch {batch}");
            let axes = ["milliseconds per image", "top-1 of the published weights, %"];
            let chart = Scatter::new(title, axes[0], axes[1], &engines, points).names(names).logarithmic();
            charts.push(chart.svg()?);
        }
    }
    Ok(charts)
}

/// Images per second: bars of all devices for each mode and batch size, and curves over the batch size for each
/// network and mode that has several.
fn charts(rows: &[Row]) -> Result<Vec<String>> {
    let speed = |model: &str, mode: Mode, batch: usize, engine: &str| {
        let of = |row: &&Row| row.model == model && row.mode == mode && row.batch == batch && row.engine() == engine;
        Some(rows.iter().find(of)?.figures()?.images_per_second)
    };
    let (models, engines) = (distinct(rows, |row| row.model.clone()), distinct(rows, Row::engine));
    let mut charts = Vec::new();
    for (mode, batch) in distinct(rows, |row| (row.mode, row.batch)) {
        let mut bars = Bars::new(format!("{}, batch {batch}", mode.name()), "images per second", &engines);
        for model in &models {
            bars = bars.group(model, engines.iter().map(|engine| speed(model, mode, batch, engine)));
        }
        charts.push(bars.svg()?);
    }
    let batches = distinct(rows, |row| row.batch);
    if batches.len() > 1 {
        for (model, mode) in distinct(rows, |row| (row.model.clone(), row.mode)) {
            let title = format!("{model}, {}", mode.name());
            let mut lines = Lines::new(title, "images per pass", "images per second").logarithmic();
            for engine in &engines {
                let points =
                    batches.iter().filter_map(|&batch| Some((batch as f64, speed(&model, mode, batch, engine)?)));
                lines = lines.series(engine, points.collect::<Vec<_>>());
            }
            charts.push(lines.svg()?);
        }
    }
    Ok(charts)
}
