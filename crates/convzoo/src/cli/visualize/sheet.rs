//! The folder and the page that pictures go to.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use convzoo::Network;
use convzoo::visualize::View;
use convzoo_report::{Page, write_png};
use image::RgbImage;
use image::imageops::{FilterType, resize};
use npyz::WriterBuilder;

use super::Args;
use crate::cli::claim::{Kind, claim};

/// Images that a page shows; the pictures of more are files only, so that no folder is too large.
const MOST_SHOWN: usize = 40;

/// Pictures as files and as a page of all of them.
pub struct Sheet {
    folder: Folder,
    page: Page,
    files: Vec<PathBuf>,
    shown: usize,
    names: HashMap<String, usize>,
}

impl Sheet {
    /// Begins a page. The folder is made here, so that one that cannot be is told of before anything is computed.
    pub fn new(args: &Args, network: &Network, title: &str, introduction: &str) -> Result<Self> {
        let layer = args.layer.as_ref().map_or_else(String::new, |layer| format!(", layer {layer}"));
        let of = format!("Network {}, weights {}{layer}.", network.name(), args.trained.weights_name());
        let page = Page::new(title).text(introduction).text(&of);
        Ok(Self { folder: Folder::new(&args.out)?, page, files: Vec::new(), shown: 0, names: HashMap::new() })
    }

    /// The name under which the files of an image go: its own, and a number where another has the same.
    pub fn name(&mut self, image: &str) -> String {
        let stem =
            Path::new(image).file_stem().map_or_else(|| "image".into(), |stem| stem.to_string_lossy().into_owned());
        let stem = if stem == "-" { "image".to_owned() } else { stem };
        let count = self.names.entry(stem.clone()).and_modify(|count| *count += 1).or_insert(1);
        if *count == 1 { stem } else { format!("{stem}-{count}") }
    }

    /// Writes a picture to a file of this name.
    pub fn picture(&mut self, name: &str, picture: &RgbImage) -> Result<()> {
        let path = self.folder.path.join(format!("{}.png", file_name(name)));
        claim("--out", &path, Kind::Png)?;
        write_png(picture, &path)?;
        self.files.push(path);
        Ok(())
    }

    /// Writes numbers to a file of this name.
    pub fn numbers(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        let path = self.folder.path.join(format!("{}.npy", file_name(name)));
        claim("--out", &path, Kind::Array)?;
        let write = || {
            let shape: Vec<u64> = shape.iter().map(|&side| side as u64).collect();
            let mut bytes = Vec::new();
            let options = npyz::WriteOptions::<f32>::new().default_dtype().shape(&shape);
            let mut writer = options.writer(&mut bytes).begin_nd()?;
            writer.extend(values.iter().copied())?;
            writer.finish()?;
            // Under another name first, so that no half of it is ever seen.
            let part = path.with_extension("npy.part");
            let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, &path));
            if written.is_err() {
                let _ = fs::remove_file(&part);
            }
            written
        };
        write().with_context(|| format!("writing {}", path.display()))?;
        self.files.push(path);
        Ok(())
    }

    /// Writes what the network was given of an image.
    pub fn input(&mut self, name: &str, view: &View) -> Result<()> {
        let input = view.input();
        let shape = input.dims();
        let values: Vec<f32> = input.try_into_vec_as().context("reading the device's result")?;
        self.numbers(&format!("{name}-input"), &shape, &values)
    }

    /// Adds an image's section to the page, while there is room for it.
    pub fn section(&mut self, section: impl FnOnce(Page) -> Page) {
        self.shown += 1;
        if self.shown <= MOST_SHOWN {
            let page = std::mem::replace(&mut self.page, Page::new(""));
            self.page = section(page);
        }
    }

    /// Writes the page, unless nothing is on it, and says where it and the other files are.
    pub fn finish(self, name: &str) -> Result<(Option<PathBuf>, Vec<PathBuf>)> {
        if self.shown == 0 {
            return Ok((None, self.files));
        }
        let more = self.shown.saturating_sub(MOST_SHOWN);
        let page = match more {
            0 => self.page,
            _ => self.page.text(&format!("The pictures of {more} more lie beside this page as files.")),
        };
        let path = self.folder.path.join(format!("{name}.html"));
        claim("--out", &path, Kind::Page)?;
        page.write(&path)?;
        Ok((Some(path), self.files))
    }
}

/// A name that every system takes as a file's.
fn file_name(name: &str) -> String {
    let plain = |character: char| match character {
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => '_',
        character if character.is_control() => '_',
        character => character,
    };
    name.chars().map(plain).collect()
}

/// A folder that is made, and goes again if nothing came into it.
struct Folder {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Folder {
    fn new(path: &Path) -> Result<Self> {
        let made = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let folder = Self { path: path.to_owned(), made: made.map(Path::to_owned).collect() };
        fs::create_dir_all(path).with_context(|| format!("making the folder {}", path.display()))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for folder in &self.made {
            // A folder with something in it stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A picture large enough to look at: small ones are magnified by a whole number.
pub fn magnified(picture: &RgbImage) -> RgbImage {
    const SIDE: u32 = 448;
    let scale = (SIDE / picture.width().max(picture.height()).max(1)).max(1);
    let filter = if scale > 3 { FilterType::Nearest } else { FilterType::Triangle };
    resize(picture, picture.width() * scale, picture.height() * scale, filter)
}
