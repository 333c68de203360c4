//! A network as a page. All of it is there from the start, and what is shown beside the network is what the address ends
//! in (`#b7` a block, `#n12` a layer): links, the keyboard and the browser's way back need no program. Only the search
//! field does.

use std::collections::BTreeMap;

use convzoo_graph::{Node, Operation, ReceptiveField};
use convzoo_report::Page;
use maud::{Markup, PreEscaped, html};
use serde::Serialize;

use crate::Drawing;
use crate::drawing::MOST_OF_BLOCK;
use crate::label::{attributes, brief_of, shape, short, side, thousands};
use crate::level::{Level, Reader, Vertex, source};
use crate::svg;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What a page is made of.
struct Writer<'a> {
    drawing: &'a Drawing,
    reader: Reader<'a>,
    fields: Vec<ReceptiveField>,
    /// The box that each node is in, by its first node.
    homes: BTreeMap<usize, usize>,
    /// Blocks alike and folded, by each of them.
    folds: BTreeMap<usize, Vec<usize>>,
}

/// A picture of a network or of a block of it, whose boxes are links: `#b3` opens block 3, `#n7` is the layer whose first
/// node is 7.
#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    /// The block; 0 is the network.
    pub block: usize,
    /// Its name; empty for the network.
    pub path: String,
    /// An SVG element without a style of its own: [`STYLE`](crate::STYLE) has the colours of its classes.
    pub svg: String,
    /// The nodes of each box that is a layer, with what follows it.
    pub layers: Vec<Vec<usize>>,
}

/// The pictures of a network: the whole, and every block that has a box in one of them.
pub fn pictures(drawing: &Drawing) -> Vec<Picture> {
    let (writer, sections) = Writer::new(drawing);
    let picture = |(block, level): &(usize, Level)| {
        let path = drawing.blocks[*block].path.clone();
        let svg = writer.picture(level, &path).into_string();
        let layers = level.vertices.iter().filter(|vertex| !vertex.outside && vertex.block.is_none());
        Picture { block: *block, path, svg, layers: layers.map(|vertex| vertex.nodes.clone()).collect() }
    };
    sections.iter().map(picture).collect()
}

/// The page of a network.
pub fn page(drawing: &Drawing) -> Page {
    let (writer, sections) = Writer::new(drawing);
    let map = writer.picture(&sections[0].1, "");
    let shown = sections.iter().map(|(block, level)| writer.section(*block, level));
    let names: Vec<(String, String)> = writer.names(&sections);
    let body = html! {
        p.totals { (drawing.totals()) }
        form.search role="search" {
            label for="find" { "Find a block or layer" }
            " "
            input #find list="names" autocomplete="off" spellcheck="false" placeholder="name, then Enter";
            datalist #names { @for (name, link) in &names { option value=(name) data-to=(link) {} } }
            " " output #found {}
        }
        div.sides {
            nav.map aria-label="The network" { (map) }
            main { @for section in shown { (section) } }
        }
    };
    Page::new(drawing.title.as_str()).style(svg::STYLE).style(STYLE).markup(body.into_string()).script(SCRIPT)
}

impl<'a> Writer<'a> {
    /// Reads a drawing: the whole network first, then each block that has a box, with its parts.
    fn new(drawing: &'a Drawing) -> (Self, Vec<(usize, Level)>) {
        let mut writer = Self {
            drawing,
            reader: drawing.reader(),
            fields: drawing.graph.receptive_fields(),
            homes: BTreeMap::new(),
            folds: BTreeMap::new(),
        };
        let overview = drawing.overview(&writer.reader);
        let mut sections = vec![(0, overview)];
        let mut at = 0;
        while let Some((_, level)) = sections.get(at) {
            let found = writer.note(level);
            sections.extend(found.into_iter().map(|block| {
                let level = writer.reader.level(block, MOST_OF_BLOCK, |_, _| true);
                (block, level)
            }));
            at += 1;
        }
        (writer, sections)
    }

    /// Notes whose boxes a level has, and returns the blocks that stand closed in it.
    fn note(&mut self, level: &Level) -> Vec<usize> {
        let mut blocks = Vec::new();
        for vertex in level.vertices.iter().filter(|vertex| !vertex.outside) {
            match vertex.block {
                None => self.homes.extend(vertex.nodes.iter().map(|&node| (node, vertex.nodes[0]))),
                Some(block) => {
                    let members: Vec<_> =
                        [block].into_iter().chain(vertex.alike.iter().filter_map(|vertex| vertex.block)).collect();
                    if members.len() > 1 {
                        self.folds.extend(members.iter().map(|&member| (member, members.clone())));
                    }
                    blocks.extend(members);
                }
            }
        }
        blocks
    }

    /// A level as a drawing whose boxes are links.
    fn picture(&self, level: &Level, within: &str) -> Markup {
        let link = |vertex: &Vertex| match (vertex.outside, vertex.block) {
            (true, _) => None,
            (_, Some(block)) => Some(format!("#b{block}")),
            (_, None) => Some(format!("#n{}", vertex.nodes[0])),
        };
        let piece = svg::draw(&self.drawing.graph, level, within, link);
        let [width, height] = piece.size;
        // No smaller than its text can be read in: there it is scrolled.
        let least = format!("<svg style=\"min-width: {}px\"", (0.8 * width).round());
        let title = if within.is_empty() { &self.drawing.title } else { within };
        let svg = svg::document(&[([4.0; 2], piece)], [width + 8.0, height + 8.0], title, false);
        html! { (PreEscaped(svg.replacen("<svg", &least, 1))) }
    }

    fn section(&self, block: usize, level: &Level) -> Markup {
        let path = &self.drawing.blocks[block].path;
        let units = level.vertices.iter().filter(|vertex| !vertex.outside && vertex.block.is_none());
        html! {
            section id={ "b" (block) } {
                @if block == 0 {
                    h2 { "Blocks and layers" }
                    p.help {
                        "A click on a block of the drawing opens it here, a click on a layer shows what it is set to. \
                         The numbers of a shape are channels, height and width."
                    }
                    (self.list(level))
                } @else {
                    h2 { (path) }
                    (self.facts(block))
                    div.scroll { (self.picture(level, path)) }
                }
                @for unit in units { (self.unit(unit)) }
            }
        }
    }

    /// The boxes of the whole network as a table.
    fn list(&self, level: &Level) -> Markup {
        let graph = &self.drawing.graph;
        let total: usize = graph.nodes().iter().map(|node| node.macs).sum();
        html! {
            div.scroll { table {
                thead { tr {
                    th { "block or layer" } th { "output" } th.number { "parameters" } th.number { "multiply-adds" }
                    th.number { "share" }
                } }
                tbody { @for vertex in level.vertices.iter().filter(|vertex| !vertex.outside) {
                    @for member in std::iter::once(vertex).chain(&vertex.alike) {
                        @let nodes = member.nodes.iter().map(|&node| &graph.nodes()[node]);
                        @let macs = nodes.clone().map(|node| node.macs).sum::<usize>();
                        @let name = if member.name.is_empty() { brief_of(graph, member.nodes[0]) } else { member.name.clone() };
                        @let link = member.block.map_or(format!("#n{}", member.nodes[0]), |block| format!("#b{block}"));
                        tr {
                            td { a href=(link) { (name) } }
                            td { (nodes.clone().next_back().map(|node| shape(&node.shape)).unwrap_or_default()) }
                            td.number { (thousands(nodes.map(Node::params).sum())) }
                            td.number { (thousands(macs)) }
                            td.number { @if total > 0 { (format!("{:.1}%", 100.0 * macs as f64 / total as f64)) } }
                        }
                    }
                } }
            } }
        }
    }

    /// What is said of a block under its name.
    fn facts(&self, block: usize) -> Markup {
        let graph = &self.drawing.graph;
        let nodes = &self.drawing.blocks[block].nodes;
        let params: usize = nodes.iter().map(|&node| graph.nodes()[node].params()).sum();
        let macs: usize = nodes.iter().map(|&node| graph.nodes()[node].macs).sum();
        let last = nodes.last().copied().unwrap_or(0);
        html! {
            p.facts {
                "Output " (shape(&graph.nodes()[last].shape)) "; " (thousands(params)) " parameters; " (short(macs))
                " multiply-adds; sees " (field(self.fields[last])) "."
            }
            @if let Some(fold) = self.folds.get(&block) {
                p.facts {
                    (fold.len()) " alike:"
                    @for &member in fold {
                        " "
                        @if member == block { b { (self.drawing.blocks[member].path) } }
                        @else { a href={ "#b" (member) } { (self.drawing.blocks[member].path) } }
                    }
                }
            }
            p { a href="#b0" { "All blocks" } }
        }
    }

    /// A layer with what is written with it, closed until it is asked for.
    fn unit(&self, vertex: &Vertex) -> Markup {
        let graph = &self.drawing.graph;
        let first = vertex.nodes[0];
        let last = vertex.nodes.last().copied().unwrap_or(first);
        let kinds = vertex.nodes.iter().map(|&node| brief_of(graph, node)).collect::<Vec<_>>().join(" · ");
        html! {
            article id={ "n" (first) } {
                h3 {
                    a href={ "#n" (first) } {
                        @if vertex.name.is_empty() { (kinds) } @else { b { (vertex.name) } " " span { (kinds) } }
                    }
                    span.shape { (shape(&graph.nodes()[last].shape)) }
                }
                div.inside { @for &node in &vertex.nodes { (self.node(node)) } }
            }
        }
    }

    fn node(&self, number: usize) -> Markup {
        let graph = &self.drawing.graph;
        let node = &graph.nodes()[number];
        let row = |name: &str, value: &str| html! { tr { th scope="row" { (name) } td { (value) } } };
        let with_histograms = node.parameters.iter().filter_map(|parameter| {
            self.drawing.histograms.get(&parameter.name).map(|histogram| (&parameter.name, histogram))
        });
        html! {
            h4 { (node.operation.kind()) @if !node.name.is_empty() { " " code { (node.name) } } }
            div.scroll { table {
                (self.inputs(number))
                @for (name, value) in attributes(&node.operation) { (row(name, &value)) }
                (row("output", &shape(&node.shape)))
                @for parameter in &node.parameters {
                    (row(parameter.name.rsplit('.').next().unwrap_or_default(), &format!(
                        "{}, {} values{}", shape(&parameter.shape), thousands(parameter.elements()),
                        if parameter.trainable { "" } else { ", not trained" }
                    )))
                }
                @if node.macs > 0 { (row("multiply-adds", &thousands(node.macs))) }
                (row("sees", &field(self.fields[number])))
            } }
            @for (name, histogram) in with_histograms {
                p.of { code { (name) } }
                (histogram.markup())
            }
        }
    }

    /// What goes into a node; of a concatenation, as which channels.
    fn inputs(&self, number: usize) -> Markup {
        let graph = &self.drawing.graph;
        let node = &graph.nodes()[number];
        let is_concat = matches!(node.operation, Operation::Concat);
        let mut channel = 0;
        let rows = node.inputs.iter().map(|&input| {
            let channels = graph.nodes()[input].shape[0];
            let place = is_concat.then(|| format!(", becomes channels {channel}–{}", channel + channels - 1));
            channel += channels;
            (input, place.unwrap_or_default())
        });
        html! {
            @for (input, place) in rows {
                tr {
                    th scope="row" { "input" }
                    td {
                        (shape(&graph.nodes()[input].shape)) " from "
                        @match self.homes.get(&input) {
                            Some(home) => a href={ "#n" (home) } { (source(graph, input)) },
                            None => (source(graph, input)),
                        }
                        (place)
                    }
                }
            }
        }
    }

    /// What can be found by its name, and where it is.
    fn names(&self, sections: &[(usize, Level)]) -> Vec<(String, String)> {
        let blocks =
            sections.iter().skip(1).map(|(block, _)| (self.drawing.blocks[*block].path.clone(), format!("b{block}")));
        let layers = self.homes.iter().filter_map(|(&node, home)| {
            let name = &self.drawing.graph.nodes()[node].name;
            (!name.is_empty()).then(|| (name.clone(), format!("n{home}")))
        });
        blocks.chain(layers).collect()
    }
}

/// A receptive field in words.
fn field(field: ReceptiveField) -> String {
    let ReceptiveField { size, stride, center } = field;
    match size {
        [Some(height), Some(width)] => {
            let [y, x] = center;
            let every = if stride == [1, 1] { "pixel".to_owned() } else { format!("{} pixels", side(stride)) };
            format!("{height}×{width} pixels of the image, every {every}, the first around ({y}, {x})")
        }
        _ => "all of the image".to_owned(),
    }
}
