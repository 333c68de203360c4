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

const WIDTH: i32 = 760;
const BAR: i32 = 16;
const GAP: i32 = 14;
const TOP: i32 = 44;

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
        BAR * self.series.len().max(1) as i32 + GAP
    }

    fn legend_height(&self) -> i32 {
        if self.series.len() > 1 { 26 } else { 0 }
    }
}

impl Chart for Bars {
    fn title(&self) -> &str {
        &self.title
    }

    fn size(&self) -> (u32, u32) {
        let height = TOP + 20 + self.legend_height() + self.group_height() * self.groups.len() as i32 + 12;
        (WIDTH as u32, height as u32)
    }

    fn draw<DB: DrawingBackend>(&self, surface: &DrawingArea<DB, Shift>) -> Drawn<DB> {
        surface.draw(&Text::new(self.title.as_str(), (14, 12), font(18)))?;
        surface.draw(&Text::new(self.unit.as_str(), (14, 36), font(13)))?;
        let mut x = 14;
        if self.series.len() > 1 {
            for (index, name) in self.series.iter().enumerate() {
                let y = TOP + 24;
                surface.draw(&Rectangle::new([(x, y - 5), (x + 12, y + 6)], colour(index).filled()))?;
                surface.draw(&Text::new(name.as_str(), (x + 17, y), anchored(13, HPos::Left)))?;
                x += 17 + text_width(name, 13) + 18;
            }
        }
        let names = self.groups.iter().map(|(name, _)| text_width(name, 14)).max().unwrap_or(0).min(WIDTH / 3);
        let (left, right) = (names + 26, WIDTH - 70);
        let largest =
            self.groups.iter().flat_map(|(_, values)| values).flatten().fold(f64::MIN_POSITIVE, |a, b| a.max(*b));
        let top = TOP + 20 + self.legend_height();
        for (index, (name, values)) in self.groups.iter().enumerate() {
            let y = top + index as i32 * self.group_height();
            let middle = y + (self.group_height() - GAP) / 2;
            surface.draw(&Text::new(name.as_str(), (left - 10, middle), anchored(14, HPos::Right)))?;
            for (index, value) in values.iter().enumerate() {
                let y = y + index as i32 * BAR;
                let (end, label) = match value {
                    Some(value) => (left + ((right - left) as f64 * value / largest).round() as i32, short(*value)),
                    None => (left, "–".to_owned()),
                };
                surface.draw(&Rectangle::new([(left, y + 1), (end, y + BAR - 1)], colour(index).filled()))?;
                surface.draw(&Text::new(label, (end + 5, y + BAR / 2), anchored(12, HPos::Left)))?;
            }
        }
        let bottom = top + self.group_height() * self.groups.len() as i32 - GAP / 2;
        surface.draw(&PathElement::new([(left, top - 4), (left, bottom)], FAINT))
    }
}
