//! Small maps as tensors, and tensors and tables as text.

use std::io::Write;

use anyhow::{Context, Result};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use convzoo::data::{Fit, Preprocess, Source, open};
use image::{Rgb, RgbImage};

/// One map, or one filter of one channel: `[1, 1, rows, columns]`.
pub fn map<const R: usize, const C: usize>(rows: [[f32; C]; R], device: &Device) -> Tensor<4> {
    Tensor::<2>::from_data(rows, device).reshape([1, 1, R, C])
}

/// `filters`, `[outputs, inputs, height, width]`, slid over `image`, `[batch, inputs, height, width]`.
pub fn convolve(image: &Tensor<4>, filters: &Tensor<4>, stride: usize, padding: usize) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
    conv2d(image.clone(), filters.clone(), None, options)
}

/// The values of a tensor, row by row.
pub fn values<const D: usize>(tensor: &Tensor<D>) -> Result<Vec<f32>> {
    // Adding zero makes −0 a 0.
    Ok((tensor.clone() + 0.0).try_into_vec_as()?)
}

/// Writes the maps of one image, row by row, each value with at most `decimals` digits after the point.
pub fn maps(out: &mut dyn Write, title: &str, maps: &Tensor<4>, decimals: usize) -> Result<()> {
    let [_, _, height, width] = maps.dims();
    let texts: Vec<String> = values(maps)?.iter().map(|value| number(*value, decimals)).collect();
    let columns = texts.iter().map(String::len).max().unwrap_or(0);
    writeln!(out, "{title}")?;
    for (i, row) in texts.chunks(width).enumerate() {
        if i > 0 && i % height == 0 {
            writeln!(out)?;
        }
        let row: Vec<String> = row.iter().map(|text| format!("{text:>columns$}")).collect();
        writeln!(out, "  {}", row.join("  "))?;
    }
    Ok(writeln!(out)?)
}

/// A map as a picture: 0 is grey, ±`most` are white and black, and a cell is a square of `side` pixels.
pub fn grey(map: &Tensor<4>, most: f32, side: u32) -> Result<RgbImage> {
    let [_, _, height, width] = map.dims();
    let values = values(map)?;
    Ok(RgbImage::from_fn(width as u32 * side, height as u32 * side, |x, y| {
        let value = values[(y / side) as usize * width + (x / side) as usize];
        Rgb([(127.5 * (1.0 + value / most)) as u8; 3])
    }))
}

/// A handwritten 0 of the embedded digits, enlarged to `side` pixels: `[1, 1, side, side]`, 0 to 1.
pub fn zero(side: usize, device: &Device) -> Result<Tensor<4>> {
    let digits = open("digits", &Source::default())?.train;
    let index = (0..digits.len()).find(|&index| digits.label(index).is_ok_and(|label| label == 0));
    let image = digits.get(index.context("there is no 0 among the digits")?)?.image;
    let pixels = Preprocess::new(1, side, side, Fit::Resize).apply(&image);
    Ok(Tensor::from_data(TensorData::new(pixels, [1, 1, side, side]), device))
}

/// 30 as `30`, 0.25 as `0.25`, a third with three decimals as `0.333`.
pub fn number(value: f32, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// 1234567 as `1,234,567`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let groups = tail.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let head = (!head.is_empty()).then(|| head.to_owned());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

/// `[6, 28, 28]` as `6×28×28`.
pub fn shape(dims: &[usize]) -> String {
    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// Writes a table: the first column to the left, the others to the right.
pub fn table<const C: usize>(out: &mut dyn Write, header: [&str; C], rows: Vec<[String; C]>) -> Result<()> {
    let header = header.map(str::to_owned);
    let width = |i: usize| rows.iter().chain([&header]).map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; C] = std::array::from_fn(width);
    for row in std::iter::once(&header).chain(&rows) {
        let cells = row.iter().zip(widths).enumerate().map(|(i, (cell, width))| match i {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(writeln!(out)?)
}
