use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::chart::{Chart, Drawn, FAINT, INK, anchored, colour, font, short};

/// Points on a plane, coloured by class, such as a projection of features.
#[derive(Debug, Clone)]
pub struct Scatter {
    title: String,
    x: String,
    y: String,
    classes: Vec<String>,
    points: Vec<(f64, f64, usize)>,
}

/// More classes than this are not told apart by a legend.
const LEGEND: usize = 20;

impl Scatter {
    /// Points as (x, y, class); those that are not finite are left out. `x` and `y` name the axes.
    pub fn new(
        title: impl Into<String>,
        x: impl Into<String>,
        y: impl Into<String>,
        classes: impl IntoIterator<Item = impl Into<String>>,
        points: impl IntoIterator<Item = (f64, f64, usize)>,
    ) -> Self {
        let finite = points.into_iter().filter(|(x, y, _)| x.is_finite() && y.is_finite());
        Self {
            title: title.into(),
            x: x.into(),
            y: y.into(),
            classes: classes.into_iter().map(Into::into).collect(),
            points: finite.collect(),
        }
    }
}

impl Chart for Scatter {
    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        (820, 560)
    }

    fn draw<DB: DrawingBackend>(&self, surface: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        let span = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
            let room = if high > low { 0.04 * (high - low) } else { 0.5 };
            if low <= high { low - room..high + room } else { 0.0..1.0 }
        };
        let (x, y) =
            (span(&mut self.points.iter().map(|point| point.0)), span(&mut self.points.iter().map(|point| point.1)));
        let legend = (1..=LEGEND).contains(&self.classes.len());
        let (plot, side) = surface.split_horizontally(if legend { 660 } else { 820 });
        let mut builder = ChartBuilder::on(&plot);
        builder.caption(&self.title, font(18)).margin(14).x_label_area_size(42).y_label_area_size(58);
        let mut chart = builder.build_cartesian_2d(x, y)?;
        let mesh = &mut chart.configure_mesh();
        mesh.x_desc(&self.x).y_desc(&self.y).label_style(font(13)).axis_desc_style(font(14));
        mesh.light_line_style(TRANSPARENT).bold_line_style(FAINT).axis_style(INK);
        mesh.x_label_formatter(&|x| short(*x)).y_label_formatter(&|y| short(*y)).draw()?;
        let dots = self.points.iter().map(|&(x, y, class)| Circle::new((x, y), 3, colour(class).mix(0.75).filled()));
        chart.draw_series(dots)?;
        if legend {
            for (index, name) in self.classes.iter().enumerate() {
                let y = 54 + 22 * index as i32;
                side.draw(&Circle::new((12, y), 5, colour(index).filled()))?;
                side.draw(&Text::new(name.as_str(), (24, y), anchored(13, HPos::Left)))?;
            }
        }
        Ok(())
    }
}
