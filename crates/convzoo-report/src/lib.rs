//! Charts and self-contained HTML pages for training runs, benchmarks and visualizations.
//!
//! A chart is data with a title; it draws itself as SVG, for pages, or as pixels, for PNG files. Text is set in a font
//! that this crate carries, so a picture is the same on every machine.
//!
//! ```
//! use convzoo_report::{Chart, Lines, Page};
//!
//! let loss = Lines::new("Loss", "epoch", "cross entropy").series("train", [(1.0, 2.3), (2.0, 0.9), (3.0, 0.4)]);
//! let page = Page::new("A run").svg(&loss.svg()?, "Falling, as it should").table(&["epochs"], &[vec!["3".into()]]);
//! assert!(page.html().contains("<svg"));
//! # Ok::<(), convzoo_report::ReportError>(())
//! ```

mod axis;
mod bars;
mod chart;
mod error;
mod file;
mod grid;
mod lines;
mod matrix;
mod page;
mod scatter;

pub use bars::Bars;
pub use chart::{Chart, Surface};
pub use error::ReportError;
pub use file::{is_report, write_dot, write_json, write_svg};
pub use grid::{Grid, write_png};
pub use image::RgbImage;
pub use lines::Lines;
pub use matrix::Matrix;
pub use page::Page;
pub use scatter::Scatter;
