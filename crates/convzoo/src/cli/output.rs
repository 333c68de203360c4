//! What commands print.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Error, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use convzoo::data::escaped;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Prints to standard output. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        _ => Ok(()),
    }
}

/// Tells something on standard error. A log that nobody reads, or that has no room, is no reason to stop.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// `--json` and `--csv`.
#[derive(clap::Args, Clone, Copy)]
pub struct FormatArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print CSV: a line of names, then a line for each row
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

impl FormatArgs {
    /// Prints what a command found in the form that was asked for: the `document`, its `rows` under the names of their
    /// `columns`, or the `text` for people.
    pub fn print<const N: usize>(
        self,
        document: &impl Serialize,
        columns: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
        text: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        match self {
            Self { json: true, .. } => print_json(document),
            Self { csv: true, .. } => print(&csv(columns, rows)?),
            _ => text(),
        }
    }
}

/// Rows as spreadsheets and data frames read them. On a terminal, control characters in names are spelled out.
fn csv<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Result<String> {
    let escape = io::stdout().is_terminal();
    let cell = |cell: String| if escape { escaped(&cell).into_owned() } else { cell };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns).context("writing CSV")?;
    for row in rows {
        writer.write_record(row.map(cell)).context("writing CSV")?;
    }
    let bytes = writer.into_inner().context("writing CSV")?;
    String::from_utf8(bytes).context("writing CSV")
}

/// A value as a cell of CSV: empty where there is none.
pub fn cell<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

/// The sides of a shape as tables write them: `3x224x224`.
pub fn by(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// Prints one JSON document.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value).context("writing JSON")?)
}

/// A table without lines; columns from `numbers_from` on are numbers.
pub fn table(header: &[&str], numbers: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| escaped(name).into_owned()));
    // Names come from files; what is in them shall steer no terminal.
    let escape = |cell: String| escaped(&cell).into_owned();
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(escape).collect::<Vec<_>>()));
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// How many columns of text there is room for: as many as the terminal has or `COLUMNS` says; in a pipe any number.
fn room() -> usize {
    let said = || std::env::var("COLUMNS").ok()?.parse().ok();
    let own = || Some(usize::from(terminal_size::terminal_size_of(io::stdout())?.0.0));
    said().or_else(own).unwrap_or(usize::MAX)
}

/// [`table`], without as many of the columns `less_needed`, in this order, as there is no room for; they are named below
/// it.
pub fn fitted(header: &[&str], numbers: &[usize], less_needed: &[usize], rows: Vec<Vec<String>>) -> String {
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let without = |without: &[usize]| {
        let shown: Vec<_> = (0..header.len()).filter(|column| !without.contains(column)).collect();
        let header: Vec<_> = shown.iter().map(|&column| header[column]).collect();
        let numbers: Vec<_> = (0..shown.len()).filter(|&at| numbers.contains(&shown[at])).collect();
        let rows = rows.iter().map(|row| shown.iter().map(|&column| row[column].clone()).collect());
        table(&header, &numbers, rows.collect())
    };
    let room = room();
    let mut tables = (0..less_needed.len()).map(|count| (count, without(&less_needed[..count])));
    match tables.find(|(_, table)| widest(table) <= room) {
        Some((0, table)) => table,
        found => {
            let (count, table) = found.unwrap_or_else(|| (less_needed.len(), without(less_needed)));
            let names: Vec<_> = less_needed[..count].iter().map(|&column| header[column]).collect();
            format!("{table}\n{} left out for want of room: a wider terminal or a pipe shows them\n", names.join(", "))
        }
    }
}

/// 61706 as `61,706`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// 1498376192 as `1.50 G`.
pub fn short(number: usize) -> String {
    let number = number as f64;
    match number {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n}"),
    }
}

/// `1 image`, `2 images`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A path as a shell takes it for one word.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |character: char| character.is_alphanumeric() || "/._-+=:@%,".contains(character);
    match text.chars().all(plain) && !text.is_empty() {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Bytes in binary units.
pub fn bytes(bytes: usize) -> String {
    let bytes = bytes as f64;
    match bytes {
        b if b >= f64::from(1 << 30) => format!("{:.2} GiB", b / f64::from(1 << 30)),
        b if b >= f64::from(1 << 20) => format!("{:.1} MiB", b / f64::from(1 << 20)),
        b => format!("{:.1} KiB", b / 1024.0),
    }
}

/// A progress bar on standard error, where that is a terminal.
pub fn progress(total: usize, what: &'static str) -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {human_pos}/{human_len} {per_sec} {eta} left")
        .expect("a template without mistakes")
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(total as u64), target).with_style(style).with_message(what)
}

/// A bar on standard error for a run's epochs, where that is a terminal.
pub fn training_progress() -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {human_pos}/{human_len}  {msg}")
        .expect("a template without mistakes")
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(0), target).with_style(style)
}

/// The error and its causes, each once: many tell their cause themselves. Line breaks stay, other control characters
/// are spelled out.
pub fn told(error: &Error) -> String {
    let text =
        error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |text, cause| {
            if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
        });
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// Tells the errors of single images, which stop no others. Most name the image themselves.
pub fn tell_wrong<'a>(wrong: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (image, error) in wrong {
        let image = escaped(image);
        match error.contains(&*image) {
            true => tell(&format!("error: {error}")),
            false => tell(&format!("error: {image}: {error}")),
        }
    }
}
