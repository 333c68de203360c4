use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::chart::{Chart, Drawn, FAINT, anchored, colour, font, short, text_width};

/// Horizontal bars in groups, such as the time of each network on each device.
#[derive(Debug, Clone)]
pub struct Bars {
    title: String,
    unit: String,
    series: Vec<String>,
    groups: Vec<(String, Vec<Option<f64>>)>,
}

const WIDTH: i32 = 480;
const BAR: i32 = 18;
const GAP: i32 = 10;
const TOP: i32 = 44;
/// Height of a group's name, which stands above its bars.
const NAME: i32 = 20;
/// Room for the number after the longest bar.
const NUMBER: i32 = 66;
const LEFT: i32 = 14;

impl Bars {
    /// No groups yet; `unit` stands under the title and `series` names the bars of each group.
    pub fn new(
        title: impl Into<String>,
        unit: impl Into<String>,
        series: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let series = series.into_iter().map(Into::into).collect();
        Self { title: title.into(), unit: unit.into(), series, groups: Vec::new() }
    }

    /// Adds a group: a value per series, `None` where there is none. Values that are negative or not finite count as
    /// none.
    pub fn group(mut self, name: impl Into<String>, values: impl IntoIterator<Item = Option<f64>>) -> Self {
        let values = values.into_iter().map(|value| value.filter(|value| value.is_finite() && *value >= 0.0));
        self.groups.push((name.into(), values.collect()));
        self
    }

    fn group_height(&self) -> i32 {
        NAME + BAR * self.series.len().max(1) as i32 + GAP
    }

    /// Where each series' name stands in the legend, in rows as wide as the chart, and how high they are.
    fn legend(&self) -> (Vec<(i32, i32)>, i32) {
        if self.series.len() < 2 {
            return (Vec::new(), 0);
        }
        let (mut x, mut y) = (LEFT, 0);
        let places = self.series.iter().map(|name| {
            let width = 17 + text_width(name, 14) + 18;
            if x > LEFT && x + width > WIDTH {
                (x, y) = (LEFT, y + LEGEND);
            }
            let place = (x, y);
            x += width;
            place
        });
        let places: Vec<_> = places.collect();
        (places, y + LEGEND)
    }
}

/// Height of a row of the legend.
const LEGEND: i32 = 24;

impl Chart for Bars {
    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        let (_, legend) = self.legend();
        let height = TOP + 14 + legend + self.group_height() * self.groups.len() as i32 + 8;
        (WIDTH as u32, height as u32)
    }

    fn draw<DB: DrawingBackend>(&self, surface: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        surface.draw(&Text::new(self.title.as_str(), (LEFT, 12), font(18)))?;
        surface.draw(&Text::new(self.unit.as_str(), (LEFT, 36), font(14)))?;
        let (places, legend) = self.legend();
        for (index, (name, (x, y))) in self.series.iter().zip(places).enumerate() {
            let y = TOP + 22 + y;
            surface.draw(&Rectangle::new([(x, y - 5), (x + 12, y + 6)], colour(index).filled()))?;
            surface.draw(&Text::new(name.as_str(), (x + 17, y), anchored(14, HPos::Left)))?;
        }
        let largest =
            self.groups.iter().flat_map(|(_, values)| values).flatten().fold(f64::MIN_POSITIVE, |a, b| a.max(*b));
        let top = TOP + 14 + legend;
        for (index, (name, values)) in self.groups.iter().enumerate() {
            let y = top + index as i32 * self.group_height();
            surface.draw(&Text::new(name.as_str(), (LEFT, y + NAME / 2), anchored(15, HPos::Left)))?;
            for (index, value) in values.iter().enumerate() {
                let y = y + NAME + index as i32 * BAR;
                let room = f64::from(WIDTH - NUMBER - LEFT);
                let (end, label) = match value {
                    Some(value) => (LEFT + (room * value / largest).round() as i32, short(*value)),
                    None => (LEFT, "–".to_owned()),
                };
                surface.draw(&Rectangle::new([(LEFT, y + 1), (end, y + BAR - 1)], colour(index).filled()))?;
                surface.draw(&Text::new(label, (end + 5, y + BAR / 2), anchored(14, HPos::Left)))?;
            }
        }
        let bottom = top + self.group_height() * self.groups.len() as i32 - GAP / 2;
        surface.draw(&PathElement::new([(LEFT, top), (LEFT, bottom)], FAINT))
    }
}
