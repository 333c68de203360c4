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

const WIDTH: u32 = 480;
/// Height of the plot, with the legend below it.
const PLOT: u32 = 420;
const COLUMNS: u32 = 3;
const ROW: u32 = 24;

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

impl Scatter {
    fn legend_rows(&self) -> u32 {
        let classes = self.classes.len();
        if (1..=LEGEND).contains(&classes) { (classes as u32).div_ceil(COLUMNS) } else { 0 }
    }
}

impl Chart for Scatter {
    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        (WIDTH, PLOT + self.legend_rows() * ROW)
    }

    fn draw<DB: DrawingBackend>(&self, surface: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        let span = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
            let room = if high > low { 0.04 * (high - low) } else { 0.5 };
            if low <= high { low - room..high + room } else { 0.0..1.0 }
        };
        let (x, y) =
            (span(&mut self.points.iter().map(|point| point.0)), span(&mut self.points.iter().map(|point| point.1)));
        let (plot, below) = surface.split_vertically(PLOT);
        let mut builder = ChartBuilder::on(&plot);
        builder.caption(&self.title, font(18)).margin(12).x_label_area_size(44).y_label_area_size(60);
        let mut chart = builder.build_cartesian_2d(x, y)?;
        let mesh = &mut chart.configure_mesh();
        mesh.x_desc(&self.x).y_desc(&self.y).label_style(font(14)).axis_desc_style(font(15));
        mesh.light_line_style(TRANSPARENT).bold_line_style(FAINT).axis_style(INK);
        mesh.x_label_formatter(&|x| short(*x)).y_label_formatter(&|y| short(*y)).draw()?;
        let dots = self.points.iter().map(|&(x, y, class)| Circle::new((x, y), 3, colour(class).mix(0.75).filled()));
        chart.draw_series(dots)?;
        if self.legend_rows() > 0 {
            for (index, name) in self.classes.iter().enumerate() {
                let (column, row) = (index as u32 % COLUMNS, index as u32 / COLUMNS);
                let (x, y) = ((14 + column * (WIDTH - 14) / COLUMNS) as i32, (row * ROW + ROW / 2) as i32);
                below.draw(&Circle::new((x + 5, y), 5, colour(index).filled()))?;
                below.draw(&Text::new(name.as_str(), (x + 16, y), anchored(14, HPos::Left)))?;
            }
        }
        Ok(())
    }
}
