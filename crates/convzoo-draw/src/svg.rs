//! A level as SVG.

use convzoo_graph::{Graph, Operation};
use maud::{Markup, PreEscaped, html};

use crate::label::{brief_of, range, shape, short};
use crate::layout::{Layout, lay_out};
use crate::level::{Level, Vertex};

/// Colours by what a box computes, on light and dark pages.
pub const STYLE: &str = "
.net text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; fill: #1f2328; }
.net .name { font-weight: 600; font-size: 13px; } .net .faint { fill: #59636e; }
.net .title { font-weight: 600; font-size: 16px; }
.net .ground { fill: #fcfcfa; stroke: #d5d5d0; } .net .line { fill: none; stroke: #8a9097; stroke-width: 1.3; }
.net .head { fill: #8a9097; } .net rect { stroke-width: 1.2; }
.net .conv { fill: #dbe9f9; stroke: #3b6ea5; } .net .linear { fill: #e8def8; stroke: #6a51a3; }
.net .pool { fill: #dcf1de; stroke: #3c8d4f; } .net .join { fill: #fde7cf; stroke: #b8691a; }
.net .other { fill: #eef0f2; stroke: #8a8a8a; } .net .block { fill: #fff; stroke: #3b6ea5; }
.net .outside { fill: none; stroke: #8a8a8a; stroke-dasharray: 4 3; }
.net a:focus { outline: none; } .net a:focus rect, .net a:hover rect { stroke-width: 3; }
@media (prefers-color-scheme: dark) {
.net text { fill: #e4e7ea; } .net .faint { fill: #a9b1ba; }
.net .ground { fill: #16191c; stroke: #444b52; }
.net .conv { fill: #173352; stroke: #6ea3db; } .net .linear { fill: #35264f; stroke: #a78bda; }
.net .pool { fill: #17381f; stroke: #62b877; } .net .join { fill: #4a2d0e; stroke: #dd9145; }
.net .other { fill: #2a2f34; stroke: #8a9097; } .net .block { fill: #1f2428; stroke: #6ea3db; }
}
";

/// A part of a drawing, and how large it is.
pub struct Piece {
    pub markup: Markup,
    /// Width and height in pixels.
    pub size: [f32; 2],
}

/// How wide text is about, in pixels: of `size`, in a font that is not known.
pub fn width(text: &str, size: f32) -> f32 {
    let letter = |letter: char| match letter {
        'i' | 'j' | 'l' | 't' | 'f' | 'I' | '.' | ',' | ' ' | '·' | ':' | '|' | '\'' => 0.36,
        'm' | 'w' | 'M' | 'W' | '×' | '+' => 0.88,
        letter if letter.is_uppercase() => 0.72,
        _ => 0.63,
    };
    text.chars().map(letter).sum::<f32>() * size
}

/// What is written in a box.
struct Text {
    name: String,
    kind: String,
    shape: String,
    cost: String,
    class: &'static str,
}

/// What stands in the name's place, and what more there is to say of what it computes.
fn text(graph: &Graph, vertex: &Vertex, within: &str) -> Text {
    let nodes = graph.nodes();
    let first = vertex.nodes[0];
    let relative = |name: &str| match name.strip_prefix(within) {
        Some(rest) if !within.is_empty() => rest.trim_start_matches('.').to_owned(),
        _ => name.to_owned(),
    };
    let members = || std::iter::once(vertex).chain(&vertex.alike);
    let sum = |of: fn(&convzoo_graph::Node) -> usize| {
        members().flat_map(|member| &member.nodes).map(|&node| of(&nodes[node])).sum::<usize>()
    };
    let (params, macs) = (sum(|node| node.params()), sum(|node| node.macs));
    let counted = [(params, "params"), (macs, "MACs")].into_iter().filter(|(count, _)| *count > 0);
    let counted = counted.filter(|_| !vertex.outside);
    let cost = counted.map(|(count, what)| format!("{} {what}", short(count))).collect::<Vec<_>>().join(" · ");
    let ends: Vec<_> = members().map(|member| output(graph, member)).collect();
    let shapes = match ends.as_slice() {
        [first, .., last] if first != last => format!("{} … {}", shape(first), shape(last)),
        _ => flattened(graph, vertex).unwrap_or_else(|| shape(ends[0])),
    };
    let kinds = || vertex.nodes.iter().map(|&node| brief_of(graph, node)).collect::<Vec<_>>().join(" · ");
    let (name, kind) = match (vertex.outside, vertex.block, vertex.alike.last()) {
        (true, ..) if first == 0 => (vertex.name.clone(), String::new()),
        (true, ..) => (format!("from {}", vertex.name), String::new()),
        (_, Some(_), Some(last)) => {
            let count = vertex.alike.len() + 1;
            (range(&relative(&vertex.name), &relative(&last.name)), format!("×{count}, {}", census(graph, vertex)))
        }
        (_, Some(_), None) => (relative(&vertex.name), census(graph, vertex)),
        _ if vertex.name.is_empty() => (kinds(), String::new()),
        _ => (relative(&vertex.name), kinds()),
    };
    let kind = match &nodes[first].operation {
        // What goes into it, and how many channels of each.
        Operation::Concat if vertex.block.is_none() && !vertex.outside => {
            let parts = nodes[first].inputs.iter().map(|&input| nodes[input].shape[0].to_string());
            format!("{} channels", parts.collect::<Vec<_>>().join(" + "))
        }
        _ => kind,
    };
    Text { name, kind, shape: shapes, cost, class: class(graph, vertex) }
}

/// The shape of what comes out of a box.
fn output<'a>(graph: &'a Graph, vertex: &Vertex) -> &'a [usize] {
    let last = vertex.nodes.last().copied().unwrap_or(0);
    &graph.nodes()[last].shape
}

/// What a layer's feature maps become where they are flattened after it, unless they are of one pixel.
fn flattened(graph: &Graph, vertex: &Vertex) -> Option<String> {
    let nodes = graph.nodes();
    let flatten = vertex.nodes[1..].iter().find(|&&node| matches!(nodes[node].operation, Operation::Flatten))?;
    let maps = &nodes[nodes[*flatten].inputs[0]].shape;
    let is_map = vertex.block.is_none() && maps[1..].iter().any(|&side| side > 1);
    is_map.then(|| format!("{} → {}", shape(maps), shape(output(graph, vertex))))
}

/// The layers with weights of a block, counted by kind.
fn census(graph: &Graph, vertex: &Vertex) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for &node in &vertex.nodes {
        let kind = match graph.nodes()[node].operation {
            Operation::Conv2d { .. } => "conv",
            Operation::Linear { .. } => "linear",
            Operation::MaxPool2d { .. } | Operation::AvgPool2d { .. } | Operation::AdaptiveAvgPool2d { .. } => "pool",
            Operation::Add => "sum",
            Operation::Concat => "concat",
            Operation::Gate => "gate",
            _ => continue,
        };
        match counts.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((kind, 1)),
        }
    }
    counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

fn class(graph: &Graph, vertex: &Vertex) -> &'static str {
    match (&graph.nodes()[vertex.nodes[0]].operation, vertex.block) {
        _ if vertex.outside => "outside",
        (_, Some(_)) => "block",
        (Operation::Conv2d { .. }, _) => "conv",
        (Operation::Linear { .. }, _) => "linear",
        (Operation::Add | Operation::Concat | Operation::Gate, _) => "join",
        (
            Operation::MaxPool2d { .. }
            | Operation::AvgPool2d { .. }
            | Operation::AdaptiveAvgPool2d { .. }
            | Operation::GlobalMaxPool2d,
            _,
        ) => "pool",
        _ => "other",
    }
}

/// Space between a box and what is written in it.
const PAD: f32 = 9.0;

/// Names are set in 13 pixels and in bold, which is wider.
pub const BOLD: f32 = 14.0;

/// Height of a line of text.
const LINE: f32 = 15.0;

/// Draws a level, the names of its boxes without the name `within`; `link` says where a box leads.
pub fn draw(graph: &Graph, level: &Level, within: &str, link: impl Fn(&Vertex) -> Option<String>) -> Piece {
    let texts: Vec<_> = level.vertices.iter().map(|vertex| text(graph, vertex, within)).collect();
    let mut fed = vec![0; texts.len()];
    level.edges.iter().for_each(|edge| fed[edge.1] += 1);
    // Without branches there is room beside the names.
    let is_wide = fed.iter().all(|&count| count <= 1) && level.edges.len() + 1 == texts.len();
    let wide = texts.iter().map(Text::wide).fold(0.0, f32::max);
    let sizes = texts.iter().map(|text| if is_wide { [wide, text.wide_height()] } else { text.narrow() });
    let sizes: Vec<_> = sizes.collect();
    let gap = if is_wide { 13.0 } else { 30.0 };
    let layout = lay_out(&sizes, &level.edges, &level.order(), gap);
    let boxes = level.vertices.iter().zip(&texts).zip(layout.boxes.iter().zip(&sizes)).map(|((vertex, text), at)| {
        let drawn = boxed(text, *at.0, *at.1, is_wide);
        match link(vertex) {
            Some(link) => html! { a href=(link) aria-label=(text.said()) { (drawn) } },
            None => html! { g { (drawn) } },
        }
    });
    let markup = html! { (lines(&layout)) @for drawn in boxes { (drawn) } };
    Piece { markup, size: layout.size }
}

impl Text {
    fn said(&self) -> String {
        let parts = [&self.name, &self.kind, &self.shape, &self.cost];
        parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(", ")
    }

    /// Width with the shape and the cost to the right of name and kind.
    fn wide(&self) -> f32 {
        let first = width(&self.name, BOLD) + width(&self.shape, 12.0);
        let second = width(&self.kind, 12.0) + width(&self.cost, 12.0);
        first.max(second) + 2.0 * PAD + 24.0
    }

    fn wide_height(&self) -> f32 {
        if self.kind.is_empty() && self.cost.is_empty() { LINE + 10.0 } else { 2.0 * LINE + 9.0 }
    }

    fn lines(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let lines = [(&self.name, "name"), (&self.kind, ""), (&self.shape, ""), (&self.cost, "faint")];
        lines.into_iter().filter(|(line, _)| !line.is_empty()).map(|(line, class)| (line.as_str(), class))
    }

    /// Width and height with one below the other.
    fn narrow(&self) -> [f32; 2] {
        let widths = self.lines().map(|(line, class)| width(line, if class == "name" { BOLD } else { 12.0 }));
        [widths.fold(60.0, f32::max) + 2.0 * PAD, LINE * self.lines().count() as f32 + 10.0]
    }
}

fn boxed(text: &Text, [x, y]: [f32; 2], [width, height]: [f32; 2], is_wide: bool) -> Markup {
    let [left, top, wide, tall] = [x, y, width, height].map(pixel);
    let right = pixel(x + width - PAD);
    let (from, middle) = (pixel(x + PAD), pixel(x + width / 2.0));
    let base = |line: usize| pixel(y + 5.0 + LINE * (line as f32 + 0.78));
    html! {
        rect class=(text.class) x=(left) y=(top) width=(wide) height=(tall) rx="5" {}
        @if is_wide {
            text.name x=(from) y=(base(0)) { (text.name) }
            text x=(right) y=(base(0)) text-anchor="end" { (text.shape) }
            @if !text.kind.is_empty() { text x=(from) y=(base(1)) { (text.kind) } }
            @if !text.cost.is_empty() { text.faint x=(right) y=(base(1)) text-anchor="end" { (text.cost) } }
        } @else {
            @for (number, (line, class)) in text.lines().enumerate() {
                text class=[(!class.is_empty()).then_some(class)] x=(middle) y=(base(number)) text-anchor="middle" { (line) }
            }
        }
    }
}

fn pixel(place: f32) -> i32 {
    place.round() as i32
}

/// All lines as one path, and their arrows' heads as another.
fn lines(layout: &Layout) -> Markup {
    let (mut path, mut heads) = (String::new(), String::new());
    for line in &layout.lines {
        for (number, pair) in line.windows(2).enumerate() {
            let [[x0, y0], [x1, y1]] = [pair[0].map(pixel), pair[1].map(pixel)];
            // The head ends at the box.
            let y1 = if number + 2 == line.len() { y1 - 5 } else { y1 };
            if number == 0 {
                path += &format!("M{x0} {y0}");
            }
            path += &match x0 == x1 {
                true => format!("V{y1}"),
                false => format!("C{x0} {m} {x1} {m} {x1} {y1}", m = (y0 + y1) / 2),
            };
        }
        if let Some([x, y]) = line.last().map(|end| end.map(pixel)) {
            heads += &format!("M{x} {y}l-3.5-6h7z");
        }
    }
    html! { path.line d=(path) {} path.head d=(heads) {} }
}

/// An SVG document or element of pieces at their places.
pub fn document(pieces: &[([f32; 2], Piece)], [width, height]: [f32; 2], title: &str, is_file: bool) -> String {
    let [wide, tall] = [width, height].map(|side| side.ceil() as i32);
    let markup = html! {
        svg.net xmlns=[is_file.then_some("http://www.w3.org/2000/svg")] viewBox={ "0 0 " (wide) " " (tall) }
            width=(wide) height=(tall) role=[is_file.then_some("img")] {
            title { (title) }
            @if is_file {
                style { (PreEscaped(STYLE)) }
                rect.ground x="0.5" y="0.5" width=(wide - 1) height=(tall - 1) rx="8" {}
            }
            @for ([x, y], piece) in pieces {
                g transform={ "translate(" (pixel(*x)) " " (pixel(*y)) ")" } { (piece.markup) }
            }
        }
    };
    markup.into_string()
}
