//! A photograph as training and as evaluation see it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use convzoo::data::{Fit, Preprocess, load_image};
use convzoo_report::{Grid, write_png};
use image::{Rgb, RgbImage};

/// The side of a network's input: half of AlexNet's, so that ten fit on a page.
const SIDE: usize = 112;
/// The side that a photograph is resized to before it is cropped, in AlexNet's proportion of 224 to 256.
const SHORTER: usize = 128;

#[derive(clap::Args)]
pub struct Args {
    /// The photograph
    image: PathBuf,
    /// The PNG file to write
    #[arg(long, value_name = "FILE")]
    picture: PathBuf,
}

/// The corners and the middle, and their mirror images.
pub fn ten_crops(args: &Args, out: &mut dyn Write) -> Result<()> {
    let photograph = load_image(&args.image)?;
    let crops = Preprocess::new(3, SIDE, SIDE, Fit::ResizeCrop { shorter: SHORTER }).ten_crops(&photograph);
    let names = ["top left", "top right", "bottom left", "bottom right", "middle"];
    let names = names.map(String::from).into_iter().chain(names.map(|name| format!("mirrored, {name}")));
    let grid = names.zip(&crops).fold(Grid::new(5), |grid, (name, crop)| grid.tile(name, picture(crop)));
    write_png(&grid.image()?, &args.picture)?;
    Ok(writeln!(out, "{} crops of {SIDE}×{SIDE}, in {}", crops.len(), args.picture.display())?)
}

/// A preprocessed image, planes of 0 to 1, as a picture.
fn picture(planes: &[f32]) -> RgbImage {
    let byte = |channel: usize, x: u32, y: u32| {
        (255.0 * planes[channel * SIDE * SIDE + y as usize * SIDE + x as usize]).round() as u8
    };
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| Rgb([0, 1, 2].map(|channel| byte(channel, x, y))))
}
