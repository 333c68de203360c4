use std::sync::Once;

use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::{ReportError, file};

/// The part of a picture that a chart draws on.
pub type Surface<'a, DB> = DrawingArea<DB, Shift>;

/// What drawing on a [`Surface`] returns.
pub(crate) type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Something that can be drawn.
pub trait Chart {
    /// What stands above the drawing.
    fn title(&self) -> &str;

    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    /// Draws the chart on a surface of its [`size`](Self::size).
    ///
    /// # Errors
    ///
    /// When the backend refuses.
    fn draw<DB: DrawingBackend>(
        &self,
        surface: &DrawingArea<DB, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>>;

    /// The chart as an SVG element, to stand in a page.
    ///
    /// # Errors
    ///
    /// When the drawing library refuses.
    fn svg(&self) -> Result<String, ReportError> {
        load_fonts();
        let mut text = String::new();
        {
            let surface = SVGBackend::with_string(&mut text, self.size()).into_drawing_area();
            let drawn = surface.fill(&WHITE).and_then(|()| self.draw(&surface)).and_then(|()| surface.present());
            drawn.map_err(|problem| self.refused(problem))?;
        }
        Ok(file::printable(text))
    }

    /// The chart as pixels.
    ///
    /// # Errors
    ///
    /// When the drawing library refuses.
    fn image(&self) -> Result<RgbImage, ReportError> {
        load_fonts();
        let (width, height) = self.size();
        let mut image = RgbImage::new(width, height);
        {
            let surface = BitMapBackend::with_buffer(&mut image, (width, height)).into_drawing_area();
            let drawn = surface.fill(&WHITE).and_then(|()| self.draw(&surface)).and_then(|()| surface.present());
            drawn.map_err(|problem| self.refused(problem))?;
        }
        Ok(image)
    }

    #[doc(hidden)]
    fn refused(&self, problem: impl std::fmt::Display) -> ReportError {
        ReportError::Draw { title: self.title().to_owned(), problem: problem.to_string() }
    }
}

const FONT: &str = "sans-serif";
pub(crate) const INK: RGBColor = RGBColor(31, 35, 40);
pub(crate) const FAINT: RGBColor = RGBColor(208, 212, 217);

/// Makes the font known to the drawing library, once.
pub(crate) fn load_fonts() {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| {
        let registered = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
        assert!(registered.is_ok(), "the font that this crate carries cannot be read");
    });
}

/// Text of a size in pixels.
pub(crate) fn font(size: u32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&INK)
}

/// Text whose middle (vertically) and left, centre or right (horizontally) is the point it is drawn at.
pub(crate) fn anchored(size: u32, horizontal: HPos) -> TextStyle<'static> {
    font(size).pos(Pos::new(horizontal, VPos::Center))
}

/// How wide a text will be, in pixels.
pub(crate) fn text_width(text: &str, size: u32) -> i32 {
    load_fonts();
    let measured = (FONT, size).into_font().box_size(text).map_or(0, |(width, _)| width);
    i32::try_from(measured).unwrap_or(i32::MAX)
}

/// A colour per series: ten that are told apart easily, also by people who confuse red and green; then others.
pub(crate) fn colour(index: usize) -> RGBColor {
    const TEN: [RGBColor; 10] = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(230, 159, 0),
        RGBColor(86, 180, 233),
        RGBColor(110, 84, 160),
        RGBColor(120, 120, 120),
        RGBColor(150, 90, 40),
        RGBColor(60, 60, 60),
    ];
    TEN.get(index).copied().unwrap_or_else(|| {
        // The golden angle puts each hue far from the ones before it.
        let (red, green, blue) = HSLColor((index as f64 * 0.381_966).fract(), 0.6, 0.45).rgb();
        RGBColor(red, green, blue)
    })
}

/// A number as short as it can be read: `0.125`, `14.2`, `1437`.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        _ if magnitude < 1e-12 => return "0".to_owned(),
        _ if magnitude >= 100.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 => 2,
        _ if magnitude >= 0.01 => 3,
        _ => return format!("{value:.1e}"),
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_are_short() {
        let written = [0.0, 2.2e-16, 0.5, -0.125, 1.0, 1.5, 14.23, 1437.4, 0.004, 1e9].map(short);
        assert_eq!(written, ["0", "0", "0.5", "-0.125", "1", "1.5", "14.2", "1437", "4.0e-3", "1000000000"]);
    }
}
