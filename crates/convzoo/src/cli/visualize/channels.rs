//! Features, filters and deconvnet: what the channels of a layer are for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use burn::tensor::Tensor;
use convzoo::visualize::{
    Cell, Found, Glimpse, Patch, SeenLayer, Strongest, View, VisualizeError, deconvnet as project, features as look,
    filters as weights, find_layer, layers, overview, peaks, scale_bar, short,
};
use convzoo::{Network, classify};
use convzoo_report::Grid;
use image::RgbImage;
use image::imageops::{FilterType, crop_imm, resize};

use super::sheet::{Sheet, magnified};
use super::{Answer, Args, wrong};
use crate::cli::images::Source;
use crate::cli::output::progress;

/// Classes that JSON names beside each image.
const TOP: usize = 5;

/// The feature maps of a layer for each image, or the strongest one of every layer.
pub fn features(args: &Args, network: &Network, sources: &[Source], title: &str) -> Result<(Vec<Answer>, Sheet)> {
    let layer = args.layer.as_deref();
    if layer.is_none() && (args.top.is_some() || !args.channels.is_empty() || args.raw) {
        bail!("--channels, --top and --raw are for the channels of one layer: name it with --layer");
    }
    if let Some(layer) = layer {
        check_channels(&find(network, layer)?, &args.channels)?;
    }
    let introduction = match layer {
        Some(_) => {
            "Each tile is a channel (ch), stretched from its smallest number (violet) to its largest (yellow), which \
             stands under it."
        }
        None => {
            "Each tile is a layer's strongest channel (ch), from its smallest number (violet) to its largest (yellow). \
             Maps get coarser, and their receptive fields larger, from layer to layer."
        }
    };
    let mut sheet = Sheet::new(args, network, title, introduction)?;
    let bar = progress(sources.len(), "images");
    let mut answers = Vec::with_capacity(sources.len());
    for source in sources {
        let read = source.read().and_then(|image| Ok((View::new(network, &image)?, image)));
        let (view, image) = match read {
            Ok(read) => read,
            Err(error) => {
                answers.push(wrong(source, &error));
                continue;
            }
        };
        let name = sheet.name(&source.name());
        let photograph = magnified(&view.picture());
        let (grid, caption) = match layer {
            Some(layer) => {
                let features = look(network, view.input(), layer)?;
                let channels = chosen(args, |count| features.strongest(count));
                let channels = channels.unwrap_or_else(|| (0..features.maps.len()).collect());
                if args.raw {
                    let (height, width) = (features.maps[0].height, features.maps[0].width);
                    let values: Vec<_> = features.maps.iter().flat_map(|map| map.values.iter().copied()).collect();
                    sheet.numbers(&format!("{name}-{layer}"), &[features.maps.len(), height, width], &values)?;
                    sheet.input(&name, &view)?;
                }
                let shape: Vec<_> = features.layer.output.iter().map(usize::to_string).collect();
                let caption = format!("{layer}: {}, {}", features.layer.kind, shape.join("×"));
                (features.grid(&channels)?, caption)
            }
            None => {
                let glimpses = overview(network, view.input())?;
                (Glimpse::strip(&glimpses)?, format!("{} layers", glimpses.len()))
            }
        };
        sheet.picture(&format!("{name}-{}", layer.unwrap_or("features")), &grid)?;
        sheet.section(|page| {
            let page = page.heading(&name).image(&photograph, "the network's input").image(&grid, &caption);
            page.image(&scale_bar(), "the colours of a tile, from its smallest number to its largest")
        });
        answers.push(Answer::Shown { image: source.name(), top: classify(network, &image, TOP)?, explained: None });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((answers, sheet))
}

/// The kernels of a convolution.
pub fn filters(args: &Args, network: &Network, title: &str) -> Result<Sheet> {
    let filters = weights(network, network.input(), args.layer.as_deref())?;
    check_channels(&find(network, &filters.layer)?, &args.channels)?;
    let chosen = chosen(args, |count| filters.strongest(count));
    let chosen = chosen.unwrap_or_else(|| (0..filters.kernels.len()).collect());
    let introduction = "Each tile is a filter, with its number. Grey is a weight of zero; where a filter has more than \
                        three channels, its slices lie side by side, row by row.";
    let mut sheet = Sheet::new(args, network, title, introduction)?;
    let grid = filters.grid(&chosen)?;
    let kernel = &filters.kernels[0];
    let (layer, all) = (&filters.layer, filters.kernels.len());
    let caption =
        format!("{layer}: {} of {all} filters, {}×{}×{}", chosen.len(), kernel.channels, kernel.height, kernel.width);
    sheet.picture(&format!("{layer}-filters"), &grid)?;
    sheet.section(|page| page.heading(layer).image(&grid, &caption));
    Ok(sheet)
}

/// Channels that deconvnet shows where nothing else is said.
const CHANNELS: usize = 9;

/// Images that pass the network together on the search for the strongest.
const BATCH: usize = 8;

/// Projections that pass it together: a backward pass keeps every layer's output.
const TOGETHER: usize = 3;

/// The sides of a patch and of its projection in the pictures, in pixels.
const TILE: u32 = 112;

/// A part of an image that excites a channel, and what of it did.
struct Excited {
    found: Found,
    patch: RgbImage,
    projection: RgbImage,
}

/// What excites the channels of a layer: of one image, its strongest channels; of many, the nine images that excite
/// each channel most. Images are read twice, so that only those that are shown are ever kept.
pub fn deconvnet(args: &Args, network: &Network, sources: &[Source], title: &str) -> Result<(Vec<Answer>, Sheet)> {
    if sources.iter().any(|source| source.path().is_none()) {
        bail!("deconvnet reads images twice, which standard input does not allow: name files");
    }
    let layer = match &args.layer {
        Some(name) => find(network, name)?,
        None => last_convolution(network)?,
    };
    check_channels(&layer, &args.channels)?;
    let name = layer.summary.name.as_str();
    let introduction = format!(
        "What excites the channels of {name}: parts of images where a channel's activation is largest, and what of \
         them caused it, projected back to the pixels by a deconvnet (Zeiler and Fergus, 2013). Grey is zero."
    );
    let mut sheet = Sheet::new(args, network, title, &introduction)?;
    let (strongest, answers) = search(network, name, sources)?;
    let chosen = chosen(args, |count| strongest.channels_by_strength(count));
    let channels = chosen.unwrap_or_else(|| strongest.channels_by_strength(CHANNELS));
    let mut excited = projections(network, &layer, sources, &strongest, &channels)?;

    if let [source] = sources {
        one_image(network, &mut sheet, source, &channels, &excited)?;
    } else {
        for channel in channels {
            let found = excited.remove(&channel).unwrap_or_default();
            let tiles = |picture: fn(&Excited) -> &RgbImage| {
                found.iter().fold(Grid::new(3), |grid, excited| grid.tile("", picture(excited).clone())).image()
            };
            let (patches, projections) = (tiles(|excited| &excited.patch)?, tiles(|excited| &excited.projection)?);
            let both = Grid::new(2).tile("", patches.clone()).tile("", projections.clone()).image()?;
            sheet.picture(&format!("{name}-{channel}"), &both)?;
            let names = found.iter().map(|excited| {
                let image = Path::new(&sources[excited.found.image].name()).file_stem().unwrap_or_default().to_owned();
                format!("{} ({})", image.to_string_lossy(), short(excited.found.value))
            });
            let names = format!("Row by row, the strongest first: {}.", names.collect::<Vec<_>>().join(", "));
            sheet.section(|page| {
                let figures = [(&patches, "patches with the largest activation"), (&projections, "their projections")];
                page.heading(&format!("Channel {channel}")).images(figures).text(&names)
            });
        }
    }
    Ok((answers, sheet))
}

/// The strongest channels of one image: each patch beside its projection.
fn one_image(
    network: &Network,
    sheet: &mut Sheet,
    source: &Source,
    channels: &[usize],
    excited: &BTreeMap<usize, Vec<Excited>>,
) -> Result<()> {
    if excited.is_empty() {
        return Ok(());
    }
    let mut grid = Grid::new(3);
    for (channel, excited) in channels.iter().filter_map(|channel| Some((channel, excited.get(channel)?.first()?))) {
        let pair = Grid::new(2).tile("", excited.patch.clone()).tile("", excited.projection.clone()).image()?;
        grid = grid.tile(format!("channel {channel}: {}", short(excited.found.value)), pair);
    }
    let grid = grid.image()?;
    let name = sheet.name(&source.name());
    let photograph = magnified(&View::new(network, &source.read()?)?.picture());
    sheet.picture(&format!("{name}-deconvnet"), &grid)?;
    let caption = "where each channel's activation is largest, and its projection";
    sheet.section(|page| page.heading(&name).image(&photograph, "the network's input").image(&grid, caption));
    Ok(())
}

/// Looks for the images that excite each channel most. The answers are for all images.
fn search(network: &Network, layer: &str, sources: &[Source]) -> Result<(Strongest, Vec<Answer>)> {
    let bar = progress(sources.len(), "images");
    let (mut strongest, mut answers) = (Strongest::default(), Vec::with_capacity(sources.len()));
    for (first, batch) in (0..).step_by(BATCH).zip(sources.chunks(BATCH)) {
        let mut inputs: Vec<(usize, Tensor<4>)> = Vec::with_capacity(batch.len());
        for (index, source) in batch.iter().enumerate() {
            match source.read().and_then(|image| Ok(View::new(network, &image)?)) {
                Ok(view) => {
                    inputs.push((first + index, view.input()));
                    answers.push(Answer::Shown { image: source.name(), top: Vec::new(), explained: None });
                }
                Err(error) => answers.push(wrong(source, &error)),
            }
        }
        if !inputs.is_empty() {
            let (indices, inputs): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
            let peaks = peaks(network, Tensor::cat(inputs, 0), layer)?;
            indices.iter().zip(&peaks).for_each(|(&image, peaks)| strongest.add(image, peaks));
        }
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok((strongest, answers))
}

/// Projects what was found for these channels, image by image; for each channel the strongest first.
fn projections(
    network: &Network,
    layer: &SeenLayer,
    sources: &[Source],
    strongest: &Strongest,
    channels: &[usize],
) -> Result<BTreeMap<usize, Vec<Excited>>> {
    let mut by_image: BTreeMap<usize, Vec<Found>> = BTreeMap::new();
    for found in channels.iter().flat_map(|&channel| strongest.of(channel)) {
        by_image.entry(found.image).or_default().push(*found);
    }
    let bar = progress(by_image.values().map(Vec::len).sum(), "projections");
    let mut excited: BTreeMap<usize, Vec<Excited>> = BTreeMap::new();
    let [_, height, width] = network.input();
    for (image, found) in by_image {
        let view = View::new(network, &sources[image].read()?)?;
        let photograph = view.picture();
        for found in found.chunks(TOGETHER) {
            let cells: Vec<Cell> = found.iter().map(|found| found.cell).collect();
            let projections = project(network, view.input(), &layer.summary.name, &cells)?;
            for (found, projection) in found.iter().zip(projections) {
                let seen @ Patch { top, left, height, width } = layer.sees(found.cell.at, [height, width]);
                let patch = crop_imm(&photograph, left as u32, top as u32, width as u32, height as u32).to_image();
                let projection = projection.crop(seen).clipped(0.995).picture();
                let one = Excited { found: *found, patch: square(&patch), projection: square(&projection) };
                excited.entry(found.cell.channel).or_default().push(one);
            }
            bar.inc(found.len() as u64);
        }
    }
    bar.finish_and_clear();
    for excited in excited.values_mut() {
        excited.sort_by(|a, b| b.found.value.total_cmp(&a.found.value));
    }
    Ok(excited)
}

/// A patch as a tile; those at an image's edge, which are cut, are stretched.
fn square(patch: &RgbImage) -> RgbImage {
    let filter = if patch.width() * 4 <= TILE { FilterType::Nearest } else { FilterType::Triangle };
    resize(patch, TILE, TILE, filter)
}

fn find(network: &Network, name: &str) -> Result<SeenLayer, VisualizeError> {
    find_layer(&layers(network, network.input())?, name).cloned()
}

/// The last convolution that gives maps, before the layer that gives the classes.
fn last_convolution(network: &Network) -> Result<SeenLayer> {
    let mut layers = layers(network, network.input())?;
    if let Some(last) = layers.iter().rposition(|layer| layer.summary.params > 0 && layer.summary.kind != "BatchNorm2d")
    {
        layers.truncate(last);
    }
    let convolution = layers.into_iter().rfind(|layer| layer.summary.kind == "Conv2d" && layer.output()[1..] != [1, 1]);
    match convolution {
        Some(layer) => Ok(layer),
        None => bail!("{} has no convolution before its classes: name a layer", network.name()),
    }
}

fn check_channels(layer: &SeenLayer, asked: &[usize]) -> Result<(), VisualizeError> {
    let [channels, ..] = layer.output();
    match asked.iter().find(|&&channel| channel >= channels) {
        Some(&channel) => Err(VisualizeError::Channel { layer: layer.summary.name.clone(), channel, channels }),
        None => Ok(()),
    }
}

/// The channels that are asked for, if any are: named ones, or the strongest few.
fn chosen(args: &Args, strongest: impl Fn(usize) -> Vec<usize>) -> Option<Vec<usize>> {
    match args.top {
        Some(count) => Some(strongest(usize::from(count))),
        None => (!args.channels.is_empty()).then(|| args.channels.clone()),
    }
}
