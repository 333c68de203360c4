use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::grid::png;
use crate::{ReportError, file};

/// An HTML page that holds all it shows: it can be mailed, archived and opened without a network.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    body: Vec<String>,
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1f2328; --faint: #d0d4d9; --ground: #fff; --band: #f6f7f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --faint: #444b52; --ground: #16191c; --band: #1f2428; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground);
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2rem; }
figure { margin: 1.2rem 0; } figure svg, figure img { max-width: 100%; height: auto; border-radius: 6px; background: #fff; }
figure img.pixels { image-rendering: pixelated; }
figcaption { font-size: .9rem; opacity: .8; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; } .figures figure { margin: 0; }
.scroll { overflow-x: auto; margin: 1rem 0; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid var(--faint); white-space: nowrap; }
td.number, th.number { text-align: right; } th { background: var(--band); }
pre { overflow-x: auto; background: var(--band); padding: .7rem; border-radius: 6px; }
";

impl Page {
    /// An empty page under a title.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), body: Vec::new() }
    }

    fn push(mut self, markup: Markup) -> Self {
        self.body.push(markup.into_string());
        self
    }

    /// Begins a section.
    pub fn heading(self, text: &str) -> Self {
        self.push(html! { h2 { (text) } })
    }

    /// A paragraph.
    pub fn text(self, text: &str) -> Self {
        self.push(html! { p { (text) } })
    }

    /// Text as it stands, such as a command and its output.
    pub fn code(self, text: &str) -> Self {
        self.push(html! { pre { code { (text) } } })
    }

    /// A table. A column whose cells are all numbers, perhaps with a unit, is set to the right.
    pub fn table(self, headers: &[&str], rows: &[Vec<String>]) -> Self {
        let class = |column: usize| {
            let mut cells = rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty()).peekable();
            let numbers = cells.peek().is_some()
                && cells.all(|cell| cell.starts_with(|first: char| first.is_ascii_digit() || "-–+".contains(first)));
            numbers.then_some("number")
        };
        let classes: Vec<_> = (0..headers.len()).map(class).collect();
        self.push(html! {
            div.scroll { table {
                thead { tr { @for (header, class) in headers.iter().zip(&classes) { th class=[*class] { (header) } } } }
                tbody { @for row in rows {
                    tr { @for (cell, class) in row.iter().zip(&classes) { td class=[*class] { (cell) } } }
                } }
            } }
        })
    }

    /// A drawing, as [`Chart::svg`](crate::Chart::svg) gives it, which is put into the page as it stands.
    pub fn svg(self, svg: &str, caption: &str) -> Self {
        self.push(html! { figure { (PreEscaped(svg)) (self::caption(caption)) } })
    }

    /// A picture.
    pub fn image(self, image: &RgbImage, caption: &str) -> Self {
        self.push(figure(image, caption))
    }

    /// Pictures side by side, as many as fit in a row.
    pub fn images<'a>(self, images: impl IntoIterator<Item = (&'a RgbImage, &'a str)>) -> Self {
        self.push(html! { div.figures { @for (image, caption) in images { (figure(image, caption)) } } })
    }

    /// The page's text.
    pub fn html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    (PreEscaped(file::PAGE_MARK))
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body { h1 { (self.title) } @for part in &self.body { (PreEscaped(part)) } }
            }
        };
        file::printable(page.into_string())
    }

    /// Writes the page, under a temporary name first.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        file::write(path, self.html().as_bytes())
    }
}

fn caption(text: &str) -> Markup {
    html! { @if !text.is_empty() { figcaption { (text) } } }
}

fn figure(image: &RgbImage, caption: &str) -> Markup {
    let data = format!("data:image/png;base64,{}", STANDARD.encode(png(image)));
    html! { figure { img src=(data) alt=(caption) width=(image.width()) height=(image.height()); (self::caption(caption)) } }
}
