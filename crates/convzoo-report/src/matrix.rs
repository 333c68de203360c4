use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::chart::{Chart, Drawn, FAINT, INK, anchored, font, short, text_width};

/// A matrix as shaded cells, such as a confusion matrix: each row's cells are shaded by their share of it.
#[derive(Debug, Clone)]
pub struct Matrix {
    title: String,
    rows: String,
    columns: String,
    labels: Vec<String>,
    values: Vec<Vec<f64>>,
}

/// Cells narrower than this have no room for a number, nor rows lower than this for a label.
const READABLE: i32 = 13;

impl Matrix {
    /// A square matrix whose rows and columns have the same labels; `rows` and `columns` say what they are.
    pub fn new(
        title: impl Into<String>,
        rows: impl Into<String>,
        columns: impl Into<String>,
        labels: impl IntoIterator<Item = impl Into<String>>,
        values: Vec<Vec<f64>>,
    ) -> Self {
        let labels = labels.into_iter().map(Into::into).collect();
        Self { title: title.into(), rows: rows.into(), columns: columns.into(), labels, values }
    }

    fn cell(&self) -> i32 {
        match self.values.len() as i32 {
            ..=12 => 38,
            count @ 13..=100 => (1000 / count).max(READABLE),
            count => (1200 / count).max(1),
        }
    }

    fn margin(&self) -> i32 {
        let widest = self.labels.iter().map(|label| text_width(label, 14)).max().unwrap_or(0);
        if self.cell() < READABLE { 40 } else { 40 + widest.min(220) }
    }
}

impl Chart for Matrix {
    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        let side = self.margin() + self.cell() * self.values.len() as i32 + 20;
        (side.max(320) as u32, side as u32 + 40)
    }

    fn draw<DB: DrawingBackend>(&self, surface: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        let (cell, margin, count) = (self.cell(), self.margin(), self.values.len() as i32);
        let (left, top) = (margin, 40 + margin);
        surface.draw(&Text::new(self.title.as_str(), (14, 12), font(18)))?;
        surface.draw(&Text::new(format!("rows: {}; columns: {}", self.rows, self.columns), (14, 38), font(14)))?;
        for (y, row) in (0..).zip(&self.values) {
            let total: f64 = row.iter().sum();
            for (x, &value) in (0..).zip(row) {
                let share = if total > 0.0 { (value / total).clamp(0.0, 1.0) } else { 0.0 };
                let corner = (left + x * cell, top + y * cell);
                let shade = match x == y {
                    true => RGBColor(0, 114, 178),
                    false => RGBColor(213, 94, 0),
                };
                // The root shows the rare mistakes, which are what one looks for.
                let style = shade.mix(share.sqrt()).filled();
                surface.draw(&Rectangle::new([corner, (corner.0 + cell, corner.1 + cell)], style))?;
                let number = short(value);
                if value != 0.0 && text_width(&number, 13) + 2 <= cell {
                    let ink = if share > 0.3 { WHITE } else { INK };
                    let style = anchored(13, HPos::Center).color(&ink);
                    surface.draw(&Text::new(number, (corner.0 + cell / 2, corner.1 + cell / 2), style))?;
                }
            }
        }
        if cell >= READABLE {
            for (index, label) in (0..).zip(&self.labels) {
                let middle = index * cell + cell / 2;
                surface.draw(&Text::new(label.as_str(), (left - 7, top + middle), anchored(14, HPos::Right)))?;
                let upwards = font(14).transform(FontTransform::Rotate270).pos(Pos::new(HPos::Left, VPos::Center));
                surface.draw(&Text::new(label.as_str(), (left + middle, top - 7), upwards))?;
            }
        }
        surface.draw(&Rectangle::new([(left, top), (left + count * cell, top + count * cell)], FAINT))
    }
}
