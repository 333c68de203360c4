use std::sync::Once;

use image::RgbImage;
use maud::html;
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
        Ok(file::printable(titled(&text, self.title())))
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

/// An SVG element as a picture that has a title, for those who hear pages rather than see them.
fn titled(svg: &str, title: &str) -> String {
    let title = html! { title { (title) } }.into_string();
    let picture = svg.replacen("<svg ", "<svg role=\"img\" ", 1);
    match picture.split_once('>') {
        Some((opening, rest)) => format!("{opening}>{title}{rest}"),
        None => picture,
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
        RGBColor(150, 150, 40),
    ];
    TEN.get(index).copied().unwrap_or_else(|| {
        // The golden angle puts each hue far from the ones before it.
        let (red, green, blue) = HSLColor((index as f64 * 0.381_966).fract(), 0.6, 0.45).rgb();
        RGBColor(red, green, blue)
    })
}

/// At most `most` round numbers from `low` to `high`, as ticks of an axis: multiples of one, two or five times a power of
/// ten, and of one at least where they are to be whole.
pub(crate) fn ticks(low: f64, high: f64, most: usize, whole: bool) -> Vec<f64> {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return vec![low];
    }
    let power = 10_f64.powf((span / most as f64).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0].map(|step| step * power);
    let fits = |step: &f64| (high / step).floor() - (low / step).ceil() < most as f64 && (!whole || *step >= 1.0);
    let step = steps.into_iter().find(fits).unwrap_or(if whole { 1.0 } else { steps[4] });
    ((low / step).ceil() as i64..=(high / step).floor() as i64).map(|at| at as f64 * step).collect()
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
    use super::{short, ticks};

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(0.9, 3.1, 10, true), [1.0, 2.0, 3.0]);
        assert_eq!(ticks(0.6, 20.4, 10, true), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0]);
        assert_eq!(ticks(0.0, 1.0, 6, false), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(10.0, 10.0, 6, false), [10.0]);
        assert_eq!(ticks(-3e5, 1e6, 4, false), [0.0, 5e5, 1e6]);
        for (low, high) in [(1e-9, 3e-9), (-7.0, 1e12), (0.1, 0.10001)] {
            let ticks = ticks(low, high, 8, false);
            assert!((1..=8).contains(&ticks.len()), "{low} to {high}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        let written = [0.0, 2.2e-16, 0.5, -0.125, 1.0, 1.5, 14.23, 1437.4, 0.004, 1e9].map(short);
        assert_eq!(written, ["0", "0", "0.5", "-0.125", "1", "1.5", "14.2", "1437", "4.0e-3", "1000000000"]);
    }
}
