use std::collections::HashMap;

use convzoo_graph::Graph;
use convzoo_report::Page;
use maud::html;

use crate::label::{shape, short, thousands};
use crate::level::{Level, Reader};
use crate::page::Picture;
use crate::svg::{self, Piece};
use crate::tree::{self, Block};
use crate::{DrawError, Histogram, dot, page};

/// A network as a picture.
///
/// Blocks are what layers have in common in their names: `layer1.0.conv1` and `layer1.0.bn1` are in the block
/// `layer1.0`, a sum or concatenation in the block whose branches it joins.
#[derive(Debug)]
pub struct Drawing {
    pub(crate) title: String,
    pub(crate) graph: Graph,
    pub(crate) blocks: Vec<Block>,
    pub(crate) histograms: HashMap<String, Histogram>,
}

/// The most boxes of a drawing of the whole network: as many as a screen of 800 pixels has room for.
pub(crate) const MOST_OF_NETWORK: usize = 15;

/// The most boxes of a drawing of a block.
pub(crate) const MOST_OF_BLOCK: usize = 40;

/// Around and between the parts of a picture, in pixels.
const MARGIN: f32 = 20.0;

/// The widest picture that a page shows without making its text too small to read, in pixels.
const WIDEST: f32 = 1500.0;

/// Where pieces stand, one below the other in columns of at most this height, and the size of all.
fn columns(pieces: &[Piece], tallest: f32) -> (Vec<[f32; 2]>, [f32; 2]) {
    let [mut x, mut y, mut right, mut bottom] = [0.0_f32; 4];
    let mut places = Vec::with_capacity(pieces.len());
    for Piece { size: [width, height], .. } in pieces {
        if y > 0.0 && y + height > tallest {
            (x, y) = (right + 2.0 * MARGIN, 0.0);
        }
        places.push([x, y]);
        right = right.max(x + width);
        bottom = bottom.max(y + height);
        y += height + 1.5 * MARGIN;
    }
    (places, [right, bottom])
}

impl Drawing {
    /// Reads a network's graph.
    pub fn new(title: impl Into<String>, graph: Graph) -> Self {
        let blocks = tree::blocks(&graph);
        Self { title: title.into(), graph, blocks, histograms: HashMap::new() }
    }

    /// Adds histograms of weights, by their names in the reference's state dict, for the page to show.
    pub fn with_histograms(self, histograms: impl IntoIterator<Item = (String, Histogram)>) -> Self {
        Self { histograms: histograms.into_iter().collect(), ..self }
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.graph, &self.blocks)
    }

    /// The whole network: blocks that only follow one another are opened as far as there is room.
    pub(crate) fn overview(&self, reader: &Reader) -> Level {
        reader.level(0, MOST_OF_NETWORK, Reader::is_chain)
    }

    /// What is said of the network under its name.
    pub(crate) fn totals(&self) -> String {
        let nodes = self.graph.nodes();
        let layers =
            nodes.iter().filter(|node| node.parameters.iter().any(|parameter| parameter.shape.len() > 1)).count();
        let params: usize = nodes.iter().map(|node| node.params()).sum();
        let macs: usize = nodes.iter().map(|node| node.macs).sum();
        format!(
            "images of {}; {layers} convolutions and linear layers, {} parameters, {} multiply-adds for an image",
            shape(&self.graph.input()),
            thousands(params),
            short(macs)
        )
    }

    /// The picture as an SVG file: the whole network, and beside it each kind of block once, opened.
    pub fn svg(&self) -> String {
        let reader = self.reader();
        let level = self.overview(&reader);
        let whole = svg::draw(&self.graph, &level, "", |_| None);
        let mut kinds: Vec<(String, Vec<usize>)> = Vec::new();
        for block in level.vertices.iter().filter_map(|vertex| vertex.block) {
            let kind = reader.signature(&self.blocks[block].nodes, |operation| crate::label::brief(operation, 0));
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, blocks)) => blocks.push(block),
                None => kinds.push((kind, vec![block])),
            }
        }
        let details = kinds.iter().map(|(_, blocks)| self.detail(&reader, blocks)).collect();
        self.compose(whole, details)
    }

    /// One block, opened, as an SVG file.
    ///
    /// # Errors
    /// The network has no such block.
    pub fn block_svg(&self, name: &str) -> Result<String, DrawError> {
        let found = (1..self.blocks.len()).find(|&block| self.blocks[block].path == name);
        let Some(block) = found.filter(|_| !name.is_empty()) else {
            let like = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
            let mut nearest: Vec<_> = self.blocks[1..].iter().map(|block| block.path.clone()).collect();
            nearest.sort_by(|a, b| like(b).total_cmp(&like(a)));
            nearest.truncate(3);
            return Err(DrawError::Block { network: self.title.clone(), block: name.to_owned(), nearest });
        };
        let piece = self.detail(&self.reader(), &[block]);
        let [width, height] = piece.size;
        let title = format!("{} of {}", name, self.title);
        let size = [width + 2.0 * MARGIN, height + 2.0 * MARGIN];
        Ok(svg::document(&[([MARGIN; 2], piece)], size, &title, true))
    }

    /// The first of some blocks of the same kind, opened, under their names.
    fn detail(&self, reader: &Reader, blocks: &[usize]) -> Piece {
        let name = &self.blocks[blocks[0]].path;
        let alike: Vec<_> = blocks[1..].iter().map(|&block| self.blocks[block].path.as_str()).collect();
        let alike = match alike.as_slice() {
            [] => String::new(),
            [one] => format!("like it: {one}"),
            [.., last] => format!("{} more like it, to {last}", alike.len()),
        };
        let level = reader.level(blocks[0], MOST_OF_BLOCK, |_, _| true);
        let Piece { markup, size: [width, height] } = svg::draw(&self.graph, &level, name, |_| None);
        let lines = if alike.is_empty() { 1.0 } else { 2.0 };
        let top: f32 = 10.0 + 16.0 * lines;
        let markup = html! {
            text.name x="0" y="12" { (name) }
            @if !alike.is_empty() { text.faint x="0" y="28" { (alike) } }
            g transform={ "translate(0 " (f32::round(top) as i32) ")" } { (markup) }
        };
        let width = width.max(svg::width(name, svg::BOLD)).max(svg::width(&alike, 12.0));
        Piece { markup, size: [width, height + top] }
    }

    /// The network to the left, its blocks in columns to its right, no longer than need be.
    fn compose(&self, whole: Piece, details: Vec<Piece>) -> String {
        const HEAD: f32 = 52.0;
        let totals = self.totals();
        let head = html! { text.title x="0" y="14" { (self.title) } text.faint x="0" y="33" { (totals) } };
        // Columns as tall as the network, or taller where the picture would be too wide for a page.
        let tallest = details.iter().map(|detail| detail.size[1]).fold(whole.size[1], f32::max);
        let columns = [1.0, 1.5, 2.0, 3.0].map(|factor| columns(&details, factor * tallest));
        let left = whole.size[0] + 2.0 * MARGIN;
        let fits = columns.iter().find(|(_, [width, _])| left + width <= WIDEST);
        let (places, [width, height]) = fits.unwrap_or(&columns[columns.len() - 1]);
        let (right, bottom) = (left + width, whole.size[1].max(*height));
        let mut pieces = vec![([MARGIN, MARGIN + HEAD], whole)];
        let places = places.iter().map(|[x, y]| [MARGIN + left + x, MARGIN + HEAD + y]);
        pieces.extend(places.zip(details));
        let width = right.max(svg::width(&totals, 12.0)) + 2.0 * MARGIN;
        pieces.push(([MARGIN; 2], Piece { markup: head, size: [0.0; 2] }));
        svg::document(&pieces, [width, bottom + HEAD + 2.0 * MARGIN], &self.title, true)
    }

    /// The picture as a page that needs no other file: blocks and layers show more on a click.
    pub fn page(&self) -> Page {
        page::page(self)
    }

    /// The pictures that the page shows, for a page of the caller's own: the whole network first.
    pub fn pictures(&self) -> Vec<Picture> {
        page::pictures(self)
    }

    /// The graph in Graphviz's language, blocks as clusters.
    pub fn dot(&self) -> String {
        dot::dot(self)
    }
}
