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
    style: String,
    script: String,
}

/// Charts are drawn in ink on white; where the page is dark their ground and ink are the page's.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1f2328; --faint: #d0d4d9; --ground: #fff; --band: #f6f7f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --faint: #444b52; --ground: #16191c; --band: #1f2428; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground);
       max-width: 84rem; margin: 1.5rem auto; padding: 0 1rem; }
h1, h2, p, figcaption { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2rem; }
p { max-width: 46rem; }
figure { margin: 1.2rem 0; overflow-x: auto; } figure img { max-width: 100%; height: auto; }
figure svg { width: 100%; height: auto; display: block; }
figure svg rect[fill='#FFFFFF'] { fill: var(--ground); }
figure svg [fill='#1F2328'] { fill: var(--ink); } figure svg [stroke='#1F2328'] { stroke: var(--ink); }
figure svg [fill='#D0D4D9'] { fill: var(--faint); } figure svg [stroke='#D0D4D9'] { stroke: var(--faint); }
figure img.pixels { image-rendering: pixelated; }
figcaption { font-size: .9rem; opacity: .8; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.charts figure { margin: 0; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; } .figures figure { margin: 0; max-width: 100%; }
.thumbnails { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .8rem; }
.thumbnails figure { margin: 0; } .thumbnails img { width: 100%; image-rendering: pixelated; border-radius: 4px; }
.scroll { overflow-x: auto; margin: 1rem 0; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid var(--faint); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; } th { background: var(--band); white-space: nowrap; }
pre { overflow-x: auto; background: var(--band); padding: .7rem; border-radius: 6px; }
";

impl Page {
    /// An empty page under a title.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), body: Vec::new(), style: STYLE.to_owned(), script: String::new() }
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
        self.push(drawing(svg, caption))
    }

    /// Drawings side by side, as many as can be read in a row.
    pub fn svgs<'a>(self, svgs: impl IntoIterator<Item = &'a str>) -> Self {
        self.push(html! { div.charts { @for svg in svgs { (drawing(svg, "")) } } })
    }

    /// Small pictures in rows, each with what is to be said of it.
    pub fn thumbnails<'a>(self, images: impl IntoIterator<Item = (&'a RgbImage, &'a str)>) -> Self {
        self.push(html! { div.thumbnails { @for (image, caption) in images { (figure(image, caption)) } } })
    }

    /// A picture.
    pub fn image(self, image: &RgbImage, caption: &str) -> Self {
        self.push(figure(image, caption))
    }

    /// Pictures side by side, as many as fit in a row.
    pub fn images<'a>(self, images: impl IntoIterator<Item = (&'a RgbImage, &'a str)>) -> Self {
        self.push(html! { div.figures { @for (image, caption) in images { (figure(image, caption)) } } })
    }

    /// HTML of the caller's own, which is put into the page as it stands.
    pub fn markup(mut self, html: String) -> Self {
        self.body.push(html);
        self
    }

    /// Adds to the page's style sheet.
    pub fn style(mut self, css: &str) -> Self {
        self.style += css;
        self
    }

    /// Adds to the program that runs in the page; without, nothing does.
    pub fn script(mut self, javascript: &str) -> Self {
        self.script += javascript;
        self
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
                    style { (PreEscaped(&self.style)) }
                }
                body {
                    h1 { (self.title) }
                    @for part in &self.body { (PreEscaped(part)) }
                    @if !self.script.is_empty() { script { (PreEscaped(&self.script)) } }
                }
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

/// A drawing no larger than one and a half times as it was drawn, and no smaller than its text can be read in: there it
/// is scrolled.
fn drawing(svg: &str, caption: &str) -> Markup {
    let width = svg.split_once(" width=\"").and_then(|(_, rest)| rest.split_once('"')?.0.parse::<u32>().ok());
    let bounds = width.map(|width| format!("min-width: {}px; max-width: {}px", width * 7 / 10, width * 3 / 2));
    let svg = match &bounds {
        Some(bounds) => svg.replacen("<svg ", &format!("<svg style=\"{bounds}\" "), 1),
        None => svg.to_owned(),
    };
    html! { figure { (PreEscaped(svg)) (self::caption(caption)) } }
}

fn caption(text: &str) -> Markup {
    html! { @if !text.is_empty() { figcaption { (text) } } }
}

/// A picture, scrolled where it would be so small that its labels could not be read.
fn figure(image: &RgbImage, caption: &str) -> Markup {
    let data = format!("data:image/png;base64,{}", STANDARD.encode(png(image)));
    let (width, height) = (image.width(), image.height());
    let least = format!("min-width: {}px", width * 7 / 10);
    html! { figure { img src=(data) alt=(caption) width=(width) height=(height) style=(least); (self::caption(caption)) } }
}
