use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, RgbImage, imageops};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::chart::{anchored, load_fonts, text_width};
use crate::{ReportError, file};

/// Small pictures in rows, each with a label under it, such as the channels of a layer.
#[derive(Debug, Clone)]
pub struct Grid {
    columns: u32,
    tiles: Vec<(String, RgbImage)>,
}

const GAP: u32 = 6;
const LABEL: u32 = 16;
const FONT: u32 = 12;

impl Grid {
    /// No tiles yet; rows have `columns` tiles, at least one.
    pub fn new(columns: u32) -> Self {
        Self { columns: columns.max(1), tiles: Vec::new() }
    }

    /// Adds a tile. Its label may have several lines; what is too long for the tile is cut at its beginning. An empty one
    /// takes no room if all are empty.
    pub fn tile(mut self, label: impl Into<String>, image: RgbImage) -> Self {
        self.tiles.push((label.into(), image));
        self
    }

    /// The grid as one picture: every cell has the size of the largest tile, none is scaled.
    ///
    /// # Errors
    ///
    /// When the drawing library refuses.
    pub fn image(&self) -> Result<RgbImage, ReportError> {
        load_fonts();
        let columns = self.columns.min(self.tiles.len().max(1) as u32);
        let rows = (self.tiles.len() as u32).div_ceil(columns);
        let widest = self.tiles.iter().map(|(_, tile)| tile.width()).max().unwrap_or(1);
        let highest = self.tiles.iter().map(|(_, tile)| tile.height()).max().unwrap_or(1);
        let label = LABEL * self.tiles.iter().map(|(label, _)| label.lines().count() as u32).max().unwrap_or(0);
        let (width, height) = (GAP + columns * (widest + GAP), GAP + rows * (highest + label + GAP));
        let mut image = RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
        let cells = || {
            self.tiles.iter().zip(0u32..).map(|((text, tile), index)| {
                let (column, row) = (index % columns, index / columns);
                (text, tile, GAP + column * (widest + GAP), GAP + row * (highest + label + GAP))
            })
        };
        for (_, tile, x, y) in cells() {
            let centred = x + (widest - tile.width()) / 2;
            imageops::replace(&mut image, tile, i64::from(centred), i64::from(y));
        }
        if label > 0 {
            let surface = BitMapBackend::with_buffer(&mut image, (width, height)).into_drawing_area();
            for (text, _, x, y) in cells() {
                for (line, text) in (0..).zip(text.lines()) {
                    let at = ((x + widest / 2) as i32, (y + highest + LABEL * line + LABEL / 2 + 1) as i32);
                    let text = Text::new(fitting(text, (widest + GAP) as i32), at, anchored(FONT, HPos::Center));
                    let refused = |problem: DrawingAreaErrorKind<_>| problem.to_string();
                    let drawn = surface.draw(&text).map_err(refused);
                    drawn.map_err(|problem| ReportError::Draw { title: "grid".to_owned(), problem })?;
                }
            }
        }
        Ok(image)
    }
}

/// The end of a text that is too wide, which is where names of layers differ.
fn fitting(text: &str, width: i32) -> String {
    let mut ends =
        text.char_indices().map(|(start, _)| if start == 0 { text.to_owned() } else { format!("…{}", &text[start..]) });
    ends.find(|end| text_width(end, FONT) <= width).unwrap_or_default()
}

/// A picture as the bytes of a PNG file.
pub(crate) fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("a picture in memory fits into memory as PNG");
    bytes.into_inner()
}

/// Writes a picture as a PNG file, under a temporary name first, so that no half of it is ever seen.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_png(image: &RgbImage, path: &Path) -> Result<(), ReportError> {
    let mut bytes = png(image);
    bytes.splice(file::PNG_HEADER..file::PNG_HEADER, *file::PNG_MARK);
    file::write(path, &bytes)
}
