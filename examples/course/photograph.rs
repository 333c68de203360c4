//! A photograph as training and as evaluation see it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use convzoo::data::{Augment, ColorJitter, Fit, Preprocess, load_image};
use convzoo::report::Grid;
use image::{Rgb, RgbImage};

/// The side of a network's input: half of AlexNet's, so that ten fit on a page.
const SIDE: usize = 112;
/// The side that a photograph is resized to before it is cropped, in AlexNet's proportion of 224 to 256.
const SHORTER: usize = 128;

#[derive(clap::Args)]
pub struct Args {
    /// The photograph
    image: PathBuf,
    /// The picture to write: .png or .jpg
    #[arg(long, value_name = "FILE")]
    picture: PathBuf,
}

/// Views of each kind that the picture shows.
const VIEWS: u64 = 5;

/// Five views by each kind of augmentation, and by the usual three together.
pub fn augment(args: &Args, out: &mut dyn Write) -> Result<()> {
    let photograph = load_image(&args.image)?;
    let kinds = kinds();
    let preprocess = Preprocess::new(3, SIDE, SIDE, Fit::ResizeCrop { shorter: SIDE });
    let mut grid = Grid::new(VIEWS as u32);
    for (name, kind) in &kinds {
        for seed in 0..VIEWS {
            grid = grid.tile(*name, picture(&kind.view(&photograph, &preprocess, seed)));
        }
    }
    grid.image()?.save(&args.picture).with_context(|| format!("writing {}", args.picture.display()))?;
    Ok(writeln!(out, "{VIEWS} views by each of {} kinds, in {}", kinds.len(), args.picture.display())?)
}

// ANCHOR: kinds
/// Each kind of augmentation alone, and what networks for photographs are usually trained with.
fn kinds() -> [(&'static str, Augment); 6] {
    let none = Augment::default;
    let colours = ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1 };
    let cropped = Augment { random_resized_crop: Some(0.3), ..none() };
    [
        ("crop and resize", cropped.clone()),
        ("mirror", Augment { random_horizontal_flip: 0.5, ..none() }),
        ("rotate", Augment { random_rotation: 30.0, ..none() }),
        ("change colours", Augment { color_jitter: colours, ..none() }),
        ("erase", Augment { random_erasing: 1.0, ..none() }),
        ("crop, mirror, colours", Augment { random_horizontal_flip: 0.5, color_jitter: colours, ..cropped }),
    ]
}
// ANCHOR_END: kinds

// ANCHOR: crops
/// The corners and the middle, and their mirror images.
pub fn ten_crops(args: &Args, out: &mut dyn Write) -> Result<()> {
    let photograph = load_image(&args.image)?;
    let crops = Preprocess::new(3, SIDE, SIDE, Fit::ResizeCrop { shorter: SHORTER }).ten_crops(&photograph);
    let names = ["top left", "top right", "bottom left", "bottom right", "middle"];
    let names = names.map(String::from).into_iter().chain(names.map(|name| format!("mirrored, {name}")));
    let grid = names.zip(&crops).fold(Grid::new(5), |grid, (name, crop)| grid.tile(name, picture(crop)));
    grid.image()?.save(&args.picture).with_context(|| format!("writing {}", args.picture.display()))?;
    Ok(writeln!(out, "{} crops of {SIDE}×{SIDE}, in {}", crops.len(), args.picture.display())?)
}
// ANCHOR_END: crops

/// A network's input, planes of 0 to 1, as a picture.
fn picture(planes: &[f32]) -> RgbImage {
    let byte = |channel: usize, x: u32, y: u32| {
        (255.0 * planes[channel * SIDE * SIDE + y as usize * SIDE + x as usize]).round() as u8
    };
    RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| Rgb([0, 1, 2].map(|channel| byte(channel, x, y))))
}
