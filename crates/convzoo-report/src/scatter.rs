use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::axis::Axis;
use crate::chart::{Chart, Drawn, FAINT, INK, anchored, colour, font, short, text_width};

/// Points on a plane, coloured by class, such as a projection of features, or networks by time and accuracy.
#[derive(Debug, Clone)]
pub struct Scatter {
    title: String,
    x: String,
    y: String,
    classes: Vec<String>,
    points: Vec<(f64, f64, usize)>,
    names: Vec<String>,
    logarithmic: bool,
}

/// More classes than this are not told apart by a legend.
const LEGEND: usize = 20;

const WIDTH: u32 = 480;
/// Width of a chart whose points have names.
const NAMED_WIDTH: u32 = 720;
/// Height of the plot, with the legend below it.
const PLOT: u32 = 420;
const COLUMNS: u32 = 3;
const ROW: u32 = 24;
/// Height of a point's name.
const NAME: u32 = 12;

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
            names: Vec::new(),
            logarithmic: false,
        }
    }

    /// Writes a name beside each point, in the order of those that are drawn, where there is room for it.
    pub fn names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Draws `x` on a logarithmic scale; every point's is above zero.
    pub fn logarithmic(mut self) -> Self {
        self.logarithmic = true;
        self
    }

    fn legend_rows(&self) -> u32 {
        let classes = self.classes.len();
        if (1..=LEGEND).contains(&classes) { (classes as u32).div_ceil(COLUMNS) } else { 0 }
    }

    /// The points as they are drawn: logarithms of `x` where the axis shows those.
    fn drawn(&self) -> impl Iterator<Item = (f64, f64, usize)> {
        self.points.iter().map(|&(x, y, class)| (if self.logarithmic { x.log10() } else { x }, y, class))
    }

    fn axes(&self) -> [Axis; 2] {
        let span = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
            let room = if high > low { 0.04 * (high - low) } else { 0.5 };
            if low <= high { (low - room, high + room) } else { (0.0, 1.0) }
        };
        let (left, right) = span(&mut self.drawn().map(|point| point.0));
        let (low, high) = span(&mut self.drawn().map(|point| point.1));
        let x = match self.logarithmic {
            true => Axis::logarithmic(10_f64.powf(left), 10_f64.powf(right)),
            false => Axis::linear(left, right, 9, false),
        };
        [x, Axis::linear(low, high, 9, false)]
    }
}

/// A rectangle of pixels: left, top, right, bottom.
type Rectangle = [i32; 4];

/// Where each name stands: right, left, above or below its point, wherever it covers no point, no other name and no
/// edge; nowhere if it would. Points and names in pixels; the result is each name's rectangle.
fn places(points: &[(i32, i32)], widths: &[i32], within: Rectangle) -> Vec<Option<Rectangle>> {
    let apart = |a: &Rectangle, b: &Rectangle| a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
    let inside = |a: &Rectangle| a[0] >= within[0] && a[1] >= within[1] && a[2] <= within[2] && a[3] <= within[3];
    let mut taken: Vec<Rectangle> = points.iter().map(|&(x, y)| [x - 3, y - 3, x + 3, y + 3]).collect();
    let half = NAME as i32 / 2 + 1;
    let place = |(&(x, y), &width): (&(i32, i32), &i32)| {
        let beside = |left: i32, middle: i32| [left, middle - half, left + width, middle + half];
        let tried = [
            beside(x + 6, y),
            beside(x - 6 - width, y),
            beside(x - width / 2, y - 2 * half),
            beside(x - width / 2, y + 2 * half),
        ];
        let free = tried.into_iter().find(|place| inside(place) && taken.iter().all(|other| apart(place, other)));
        taken.extend(free);
        free
    };
    points.iter().zip(widths).map(place).collect()
}

impl Chart for Scatter {
    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        (if self.names.is_empty() { WIDTH } else { NAMED_WIDTH }, PLOT + self.legend_rows() * ROW)
    }

    fn draw<DB: DrawingBackend>(&self, surface: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        let [x, y] = self.axes();
        let (plot, below) = surface.split_vertically(PLOT);
        let mut builder = ChartBuilder::on(&plot);
        builder.caption(&self.title, font(18)).margin(12).x_label_area_size(44).y_label_area_size(60);
        let counts = [x.labels(), y.labels()];
        let mut chart = builder.build_cartesian_2d(x, y)?;
        let mesh = &mut chart.configure_mesh();
        mesh.x_desc(&self.x).y_desc(&self.y).label_style(font(14)).axis_desc_style(font(15));
        mesh.x_labels(counts[0]).y_labels(counts[1]);
        mesh.light_line_style(TRANSPARENT).bold_line_style(FAINT).axis_style(INK);
        let of_x = |x: &f64| short(if self.logarithmic { 10_f64.powf(*x) } else { *x });
        mesh.x_label_formatter(&of_x).y_label_formatter(&|y| short(*y)).draw()?;
        let dots = self.drawn().map(|(x, y, class)| Circle::new((x, y), 3, colour(class).mix(0.75).filled()));
        chart.draw_series(dots)?;
        let area = chart.plotting_area();
        let pixels: Vec<_> = self.drawn().map(|(x, y, _)| area.map_coordinate(&(x, y))).collect();
        let widths: Vec<_> = self.names.iter().map(|name| text_width(name, NAME)).collect();
        let (columns, rows) = area.get_pixel_range();
        let places = places(&pixels, &widths, [columns.start, rows.start, columns.end, rows.end]);
        for (name, [left, top, _, bottom]) in self.names.iter().zip(places).filter_map(|(name, at)| Some((name, at?))) {
            plot.draw(&Text::new(name.as_str(), (left, (top + bottom) / 2), anchored(NAME, HPos::Left)))?;
        }
        if self.legend_rows() > 0 {
            for (index, name) in self.classes.iter().enumerate() {
                let (column, row) = (index as u32 % COLUMNS, index as u32 / COLUMNS);
                let (x, y) = ((14 + column * (self.size().0 - 14) / COLUMNS) as i32, (row * ROW + ROW / 2) as i32);
                below.draw(&Circle::new((x + 5, y), 5, colour(index).filled()))?;
                below.draw(&Text::new(name.as_str(), (x + 16, y), anchored(14, HPos::Left)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn names_cover_neither_points_nor_each_other_nor_the_edge() {
        // Two points so close that their names stand on two sides; one at the right edge; one among four others.
        let points = [(50, 50), (54, 50), (195, 50), (100, 150), (110, 150), (90, 150), (100, 140), (100, 160)];
        let mut widths = [30; 8];
        widths[0] = 40;
        let found = places(&points, &widths, [0, 0, 200, 200]);
        assert_eq!(found[0], Some([4, 43, 44, 57]), "left of it: the second point is on the right");
        assert_eq!(found[1], Some([60, 43, 90, 57]));
        assert_eq!(found[2], Some([159, 43, 189, 57]), "left of it: the edge is on the right");
        assert_eq!(found[3], None, "points on all sides");
    }
}
