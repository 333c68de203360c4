//! What a run looks like: charts, and self-contained pages of them.

use std::path::Path;

use convzoo_data::{Dataset, Filter, Image};
use convzoo_report::{Chart, Lines, Page, RgbImage};
use toml::Value;

use crate::history::write_whole;
use crate::{ClassFigures, Epoch, Evaluation, Measures, Mistake, RunRecord, TrainError};

/// Mistaken images that the page shows, and their longest side in pixels.
const MISTAKES: usize = 24;
const THUMBNAIL: usize = 128;

/// What the figures of the best weights are worth where they were chosen on the test images.
const FLATTERED: &str = "The best epoch was chosen by how it does on these same images, which flatters its figures a little: \
    of images that nobody has chosen by, somewhat fewer will be right. The last epoch's figures, above, were not chosen.";

/// The same where they were chosen on validation images.
const ONCE: &str = "The best epoch was chosen on the validation images. The test images were measured once, by its weights, \
    when the run had ended.";

/// Most frequent confusions that the page lists.
const CONFUSED: usize = 20;

/// Writes `loss.svg`, `accuracy.svg`, `learning-rate.svg`, `confusion.svg` and `report.html` into a run's folder. `evaluation` is of its best weights.
pub(crate) fn write(
    record: &RunRecord,
    evaluation: &Evaluation,
    data: &dyn Dataset,
    folder: &Path,
) -> Result<(), TrainError> {
    let classes = data.classes();
    let curves = curves(&[("", record)]).iter().map(Chart::svg).collect::<Result<Vec<_>, _>>()?;
    for (name, svg) in ["loss.svg", "accuracy.svg", "learning-rate.svg"].iter().zip(&curves) {
        write_whole(&folder.join(name), svg.as_bytes())?;
    }
    let confusion = evaluation.matrix("Confusion matrix", classes).svg()?;
    write_whole(&folder.join("confusion.svg"), confusion.as_bytes())?;

    let mut page = Page::new(title(record)).table(&["run", ""], &facts(record, evaluation)).heading("Learning curves");
    page = page.svgs(curves.iter().map(String::as_str));
    page = page
        .heading("Test images, by the best weights")
        .text(if record.val_images.is_some() { ONCE } else { FLATTERED })
        .svg(&confusion, "");
    let confused = confused(evaluation, classes);
    if !confused.is_empty() {
        page = page.heading("Most confused").table(&["images", "of class", "predicted as"], &confused);
    }
    page = mistakes(page, evaluation, data)?;
    page = page
        .heading("By class")
        .table(&["class", "images", "precision", "recall", "F1"], &by_class(evaluation, classes));
    let recipe: Vec<_> = settings(record).into_iter().map(|(key, value)| vec![key, value]).collect();
    page = page.heading("Recipe").table(&["field", "value"], &recipe);
    if !record.command.is_empty() {
        page = page.heading("Command").code(&record.command.join(" "));
    }
    page.write(&folder.join("report.html"))?;
    Ok(())
}

/// Precision, recall and F1 of each class, and their means over the classes that have them.
fn by_class(evaluation: &Evaluation, classes: &[String]) -> Vec<Vec<String>> {
    let figures = evaluation.by_class();
    let cell = |share: Option<f64>| share.map_or("–".to_owned(), percent);
    let mean = |of: fn(&ClassFigures) -> Option<f64>| {
        let values: Vec<_> = figures.iter().filter_map(of).collect();
        cell((!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64))
    };
    let mut rows: Vec<_> = classes
        .iter()
        .zip(&figures)
        .map(|(class, of)| vec![class.clone(), of.images.to_string(), cell(of.precision), cell(of.recall), cell(of.f1)])
        .collect();
    let means = [mean(|of| of.precision), mean(|of| of.recall), mean(|of| of.f1)];
    rows.push(["mean over the classes".to_owned(), evaluation.images.to_string()].into_iter().chain(means).collect());
    rows
}

/// The images that were mistaken with the highest probability, with what they are and were taken for.
fn mistakes(page: Page, evaluation: &Evaluation, data: &dyn Dataset) -> Result<Page, TrainError> {
    let mut mistakes: Vec<_> = evaluation.mistakes.iter().collect();
    mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(a.image.cmp(&b.image)));
    mistakes.truncate(MISTAKES);
    if mistakes.is_empty() {
        return Ok(page);
    }
    let classes = data.classes();
    let thumbnails = mistakes.into_iter().map(|mistake| {
        let Mistake { image, class, predicted, probability } = mistake;
        let caption = format!("{} as {}, {:.0}%", classes[*class], classes[*predicted], 100.0 * probability);
        Ok((thumbnail(&data.get(*image)?.image), caption))
    });
    let thumbnails = thumbnails.collect::<Result<Vec<_>, TrainError>>()?;
    let shown = thumbnails.iter().map(|(image, caption)| (image, caption.as_str()));
    Ok(page.heading("Mistaken with the highest probability").thumbnails(shown))
}

/// An image no larger than a thumbnail is shown.
fn thumbnail(image: &Image) -> RgbImage {
    let longest = image.width.max(image.height);
    let side = |side: usize| (side * THUMBNAIL / longest).max(1);
    let small = match longest <= THUMBNAIL {
        true => image.to_rgb(),
        false => image.resize(side(image.width), side(image.height), Filter::Bilinear).to_rgb(),
    };
    let (width, height) = (small.width as u32, small.height as u32);
    RgbImage::from_raw(width, height, small.pixels).unwrap_or_default()
}

/// A page that compares runs, each with a name: figures, what their recipes differ in, and curves over each other.
pub fn comparison(runs: &[(&str, &RunRecord)]) -> Result<Page, TrainError> {
    let names: Vec<_> = runs.iter().map(|(name, _)| *name).collect();
    let headers: Vec<_> = std::iter::once("").chain(names).collect();
    let mut page = Page::new("Runs compared").table(&headers, &compared(runs));
    let curves = curves(runs).iter().map(Chart::svg).collect::<Result<Vec<_>, _>>()?;
    page = page.svgs(curves.iter().map(String::as_str));
    Ok(page)
}

/// The rows of a table that compares runs: figures, then every setting in which their recipes differ. The first cell
/// of a row names it.
pub fn compared(runs: &[(&str, &RunRecord)]) -> Vec<Vec<String>> {
    let row = |name: &str, cell: &dyn Fn(&RunRecord) -> String| {
        std::iter::once(name.to_owned()).chain(runs.iter().map(|(_, record)| cell(record))).collect::<Vec<_>>()
    };
    let part = part(runs);
    let best = |record: &RunRecord, cell: &dyn Fn(&Epoch) -> String| record.best().map_or("–".to_owned(), cell);
    let mut rows = vec![
        row("model", &|record| setup(record, "model")),
        row("data", &|record| setup(record, "data")),
        row("status", &|record| record.status.to_string()),
        row("epochs", &|record| format!("{} of {}", record.epochs.len(), record.recipe.epochs)),
        row("best epoch", &|record| best(record, &|epoch| epoch.epoch.to_string())),
        row(&format!("best {part} accuracy"), &|record| {
            best(record, &|epoch| percent(epoch.held_out.measures().accuracy))
        }),
        row(&format!("its {part} loss"), &|record| {
            best(record, &|epoch| format!("{:.4}", epoch.held_out.measures().loss))
        }),
        row("its train loss", &|record| best(record, &|epoch| format!("{:.4}", epoch.train.loss))),
        row("seconds", &|record| format!("{:.1}", record.seconds())),
        row("images per second", &|record| format!("{:.0}", images_per_second(record))),
        row("seed", &|record| record.seed.to_string()),
    ];
    if runs.iter().any(|(_, record)| !record.tags.is_empty()) {
        rows.push(row("tags", &tags));
    }
    if part == HELD_OUT {
        rows.push(row("chosen on", &|record| best(record, &|epoch| format!("{} images", epoch.held_out.part()))));
        rows.push(row("test accuracy", &|record| {
            record.tested().map_or("–".to_owned(), |test| percent(test.accuracy))
        }));
    }
    let settings: Vec<_> = runs.iter().map(|(_, record)| settings(record)).collect();
    let mut keys: Vec<&String> = settings.iter().flatten().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    // Those stand above already.
    for key in keys.into_iter().filter(|key| *key != "epochs") {
        let value = |settings: &[(String, String)]| {
            settings.iter().find(|(other, _)| other == key).map_or("–".to_owned(), |(_, value)| value.clone())
        };
        let values: Vec<_> = settings.iter().map(|settings| value(settings)).collect();
        if values.iter().any(|value| *value != values[0]) {
            rows.push(std::iter::once(key.clone()).chain(values).collect());
        }
    }
    rows
}

/// What runs that were measured on other images than each other's have in common.
const HELD_OUT: &str = "held-out";

/// The images that all of these runs were measured on after each epoch.
fn part(runs: &[(&str, &RunRecord)]) -> &'static str {
    if runs.iter().any(|(_, record)| record.val_images.is_some()) { HELD_OUT } else { "test" }
}

/// The accuracy after each epoch on the images held out, of runs with their names.
pub fn held_out_accuracy(runs: &[(&str, &RunRecord)]) -> Lines {
    let title = format!("Accuracy on the {} images", part(runs));
    runs.iter().fold(Lines::new(title, "epoch", "%"), |chart, (name, record)| {
        let point = |epoch: &Epoch| (epoch.epoch as f64, 100.0 * epoch.held_out.measures().accuracy);
        chart.series(*name, record.epochs.iter().map(point))
    })
}

/// Loss, accuracy and learning rate over the epochs, of one run without a name or of several with theirs.
fn curves(runs: &[(&str, &RunRecord)]) -> [Lines; 3] {
    let points = |record: &RunRecord, value: &dyn Fn(&Epoch) -> f64| {
        record.epochs.iter().map(|epoch| (epoch.epoch as f64, value(epoch))).collect::<Vec<_>>()
    };
    let both = |chart: Lines, value: &dyn Fn(&Measures) -> f64| {
        runs.iter().fold(chart, |chart, (name, record)| {
            let label = |part: &str| format!("{name} {part}").trim_start().to_owned();
            chart
                .series(label("train"), points(record, &|epoch| value(&epoch.train)))
                .series(label(part_of(record)), points(record, &|epoch| value(epoch.held_out.measures())))
        })
    };
    let rates = Lines::new("Learning rate", "epoch", "at the epoch's last step");
    [
        both(Lines::new("Loss", "epoch", "mean over the images"), &|measures| measures.loss),
        both(Lines::new("Accuracy", "epoch", "%"), &|measures| 100.0 * measures.accuracy),
        runs.iter()
            .fold(rates, |chart, (name, record)| chart.series(*name, points(record, &|epoch| epoch.learning_rate))),
    ]
}

/// The images that a run was measured on after each epoch.
fn part_of(record: &RunRecord) -> &'static str {
    record.epochs.first().map_or("test", |epoch| epoch.held_out.part())
}

fn title(record: &RunRecord) -> String {
    match (setup(record, "model").as_str(), setup(record, "data").as_str()) {
        ("–", _) => "A training run".to_owned(),
        (model, data) => format!("{model} on {data}"),
    }
}

/// A run's tags in a line.
pub fn tags(record: &RunRecord) -> String {
    if record.tags.is_empty() { "–".to_owned() } else { record.tags.join(", ") }
}

/// What the caller wrote down of the setup under this name.
pub fn setup(record: &RunRecord, key: &str) -> String {
    record.setup.get(key).and_then(|value| value.as_str()).unwrap_or("–").to_owned()
}

fn facts(record: &RunRecord, evaluation: &Evaluation) -> Vec<Vec<String>> {
    let versions: Vec<_> = record.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let of =
        |epoch: Option<&Epoch>| epoch.map_or("–".to_owned(), |epoch| percent(epoch.held_out.measures().accuracy));
    let images = match record.val_images {
        Some(val) => {
            format!("{} to train on, {val} to choose by, {} to test on", record.train_images, record.test_images)
        }
        None => format!("{} to train on, {} to test on", record.train_images, record.test_images),
    };
    let mut rows = vec![
        ("best epoch", format!("{} of {}", record.best_epoch.unwrap_or(0), record.epochs.len())),
        ("test top-1", percent(evaluation.top1())),
        ("test top-5", percent(evaluation.top5())),
        ("test loss", format!("{:.4}", evaluation.loss)),
        ("images", images),
        ("time", time(record)),
        ("images per second", format!("{:.0}", images_per_second(record))),
        ("device", record.device.clone()),
        ("seed", record.seed.to_string()),
        ("recipe", record.recipe_name.clone().unwrap_or_else(|| "–".to_owned())),
        ("versions", versions.join(", ")),
    ];
    let last = of(record.epochs.last());
    rows.extend(match record.val_images {
        None => vec![("top-1 of the last epoch", last)],
        Some(_) => vec![("validation accuracy of the best epoch", of(record.best())), ("of the last epoch", last)],
    });
    if let Some(name) = &record.name {
        rows.insert(0, ("name", name.clone()));
    }
    if !record.tags.is_empty() {
        rows.push(("tags", tags(record)));
    }
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect()
}

/// The whole run's time, and what of it came before the epochs.
fn time(record: &RunRecord) -> String {
    match record.backbone_seconds {
        0.0 => format!("{:.1} s", record.seconds()),
        backbone => format!("{:.1} s, {backbone:.1} s of them the frozen backbone's pass", record.seconds()),
    }
}

/// The most frequent mistakes.
fn confused(evaluation: &Evaluation, classes: &[String]) -> Vec<Vec<String>> {
    let cells = evaluation.confusion.iter().enumerate().flat_map(|(class, row)| {
        row.iter().enumerate().filter(move |(other, _)| *other != class).map(move |(other, &n)| (n, class, other))
    });
    let mut cells: Vec<_> = cells.filter(|(count, ..)| *count > 0).collect();
    cells.sort_by_key(|&(count, class, other)| (std::cmp::Reverse(count), class, other));
    let row = |(count, class, other): (usize, usize, usize)| {
        vec![count.to_string(), classes[class].clone(), classes[other].clone()]
    };
    cells.into_iter().take(CONFUSED).map(row).collect()
}

/// A recipe's fields as in TOML, tables within it as `table.field`.
fn settings(record: &RunRecord) -> Vec<(String, String)> {
    // A record that was written by hand may hold numbers that TOML does not.
    let table = record.recipe.table().unwrap_or_default();
    let flat = table.into_iter().flat_map(|(key, value)| match value {
        Value::Table(inner) => {
            inner.into_iter().map(|(field, value)| (format!("{key}.{field}"), value.to_string())).collect()
        }
        value => vec![(key, value.to_string())],
    });
    flat.collect()
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

fn images_per_second(record: &RunRecord) -> f64 {
    let rates: f64 = record.epochs.iter().map(|epoch| epoch.images_per_second).sum();
    rates / record.epochs.len().max(1) as f64
}
