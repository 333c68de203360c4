use plotters::coord::Shift;
use plotters::prelude::*;

use crate::axis::Axis;
use crate::chart::{Chart, Drawn, FAINT, INK, colour, font, short};

/// Curves over a common axis, such as the loss over a run's epochs.
#[derive(Debug, Clone)]
pub struct Lines {
    title: String,
    x: String,
    y: String,
    series: Vec<(String, Vec<(f64, f64)>)>,
    logarithmic: bool,
    logarithmic_x: bool,
}

impl Lines {
    /// No curves yet; `x` and `y` name the axes.
    pub fn new(title: impl Into<String>, x: impl Into<String>, y: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            x: x.into(),
            y: y.into(),
            series: Vec::new(),
            logarithmic: false,
            logarithmic_x: false,
        }
    }

    /// Adds a curve. Points that are not finite are left out.
    pub fn series(mut self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let finite = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite());
        self.series.push((name.into(), finite.collect()));
        self
    }

    /// Draws `y` on a logarithmic scale; points at or below zero are left out.
    pub fn logarithmic(mut self) -> Self {
        self.logarithmic = true;
        self
    }

    /// Draws `x` on a logarithmic scale; every point's is above zero.
    pub fn logarithmic_x(mut self) -> Self {
        self.logarithmic_x = true;
        self
    }

    /// An `x` as it is drawn.
    fn drawn(&self, x: f64) -> f64 {
        if self.logarithmic_x { x.log10() } else { x }
    }

    fn bounds(&self) -> [(f64, f64); 2] {
        let points =
            || self.series.iter().flat_map(|(_, points)| points).filter(|(_, y)| !self.logarithmic || *y > 0.0);
        let span = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
        };
        let widened = |(low, high): (f64, f64), share: f64| match high - low {
            room if room > 0.0 => (low - share * room, high + share * room),
            0.0 => (low - 0.5, high + 0.5),
            _ => (0.0, 1.0),
        };
        let y = span(&mut points().map(|point| point.1));
        let y = match self.logarithmic {
            true if y.0 > 0.0 && y.0.is_finite() => (y.0 * 0.8, y.1 * 1.25),
            true => (0.1, 1.0),
            false => widened(y, 0.06),
        };
        [widened(span(&mut points().map(|point| self.drawn(point.0))), 0.02), y]
    }

    /// The corner in which a legend covers the fewest points, the upper right one among equals.
    fn free_corner(&self) -> SeriesLabelPosition {
        let [(left, right), (low, high)] = self.bounds();
        let scale = |y: f64| if self.logarithmic { y.ln() } else { y };
        let near = |share: f64, end: bool| if end { share > 0.65 } else { share < 0.35 };
        let covered = |at_right, at_top| {
            let points = self.series.iter().flat_map(|(_, points)| points);
            let place = |(x, y): &(f64, f64)| {
                ((self.drawn(*x) - left) / (right - left), (scale(*y) - scale(low)) / (scale(high) - scale(low)))
            };
            points.map(place).filter(|&(x, y)| near(x, at_right) && near(y, at_top)).count()
        };
        let corners = [
            (SeriesLabelPosition::UpperRight, covered(true, true)),
            (SeriesLabelPosition::LowerLeft, covered(false, false)),
            (SeriesLabelPosition::UpperLeft, covered(false, true)),
            (SeriesLabelPosition::LowerRight, covered(true, false)),
        ];
        corners
            .into_iter()
            .min_by_key(|(_, points)| *points)
            .map_or(SeriesLabelPosition::UpperRight, |(corner, _)| corner)
    }
}

impl Lines {
    fn axes(&self) -> [Axis; 2] {
        let [(left, right), (low, high)] = self.bounds();
        let xs = || self.series.iter().flat_map(|(_, points)| points).map(|point| point.0);
        let x = match self.logarithmic_x {
            true => Axis::logarithmic(10_f64.powf(left), 10_f64.powf(right)),
            false => Axis::linear(left, right, 9, xs().all(|x| x.fract() == 0.0)),
        };
        let y = if self.logarithmic { Axis::logarithmic(low, high) } else { Axis::linear(low, high, 6, false) };
        [x, y]
    }
}

impl Chart for Lines {
    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        (480, 320)
    }

    fn draw<DB: DrawingBackend>(&self, surface: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        let [x, y] = self.axes();
        let shown = |value: f64| if self.logarithmic { value.log10() } else { value };
        let mut builder = ChartBuilder::on(surface);
        builder.caption(&self.title, font(18)).margin(12).x_label_area_size(44).y_label_area_size(64);
        let counts = [x.labels(), y.labels()];
        let mut chart = builder.build_cartesian_2d(x, y)?;
        let mesh = &mut chart.configure_mesh();
        mesh.x_desc(&self.x).y_desc(&self.y).label_style(font(14)).axis_desc_style(font(15));
        mesh.x_labels(counts[0]).y_labels(counts[1]);
        mesh.light_line_style(TRANSPARENT).bold_line_style(FAINT).axis_style(INK);
        let of_y = |y: &f64| short(if self.logarithmic { 10_f64.powf(*y) } else { *y });
        let of_x = |x: &f64| short(if self.logarithmic_x { 10_f64.powf(*x) } else { *x });
        mesh.x_label_formatter(&of_x).y_label_formatter(&of_y).draw()?;
        for (index, (name, points)) in self.series.iter().enumerate() {
            let style = colour(index).stroke_width(2);
            let points = || {
                let points = points.iter().filter(|(_, y)| !self.logarithmic || *y > 0.0);
                points.map(|&(x, y)| (self.drawn(x), shown(y)))
            };
            let line = chart.draw_series(LineSeries::new(points(), style))?;
            line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            // A curve of one point has no line; many points need no dots.
            if points().count() <= 60 {
                let dots = points().map(|point| Circle::new(point, 2, colour(index).filled()));
                chart.draw_series(dots)?;
            }
        }
        if self.series.len() > 1 {
            let labels = &mut chart.configure_series_labels();
            labels.position(self.free_corner()).label_font(font(14));
            labels.background_style(WHITE.mix(0.85)).border_style(FAINT).draw()?;
        }
        Ok(())
    }
}
