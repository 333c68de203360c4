//! Graphviz's language.

use std::fmt::Write as _;

use crate::Drawing;
use crate::label::{brief_of, shape, short};
use crate::tree::Item;

/// All nodes, the blocks as clusters within one another, and the shapes of what flows.
pub fn dot(drawing: &Drawing) -> String {
    let mut text = format!("digraph {} {{\n", quoted(&drawing.title));
    text += "  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"];\n";
    text += "  edge [fontname=\"sans-serif\", fontsize=10];\n";
    text += &node(drawing, 0, 1);
    cluster(drawing, 0, 1, &mut text);
    for (to, node) in drawing.graph.nodes().iter().enumerate() {
        for &from in &node.inputs {
            let label = quoted(&shape(&drawing.graph.nodes()[from].shape));
            // Writing to a string does not fail.
            let _ = writeln!(text, "  n{from} -> n{to} [label={label}];");
        }
    }
    text + "}\n"
}

fn cluster(drawing: &Drawing, block: usize, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    for item in &drawing.blocks[block].items {
        match *item {
            Item::Node(number) => *text += &node(drawing, number, depth),
            Item::Block(inner) => {
                let label = quoted(&drawing.blocks[inner].path);
                let _ = writeln!(text, "{indent}subgraph cluster_{inner} {{\n{indent}  label={label};");
                cluster(drawing, inner, depth + 1, text);
                let _ = writeln!(text, "{indent}}}");
            }
        }
    }
}

fn node(drawing: &Drawing, number: usize, depth: usize) -> String {
    let node = &drawing.graph.nodes()[number];
    let mut lines = vec![node.name.clone(), brief_of(&drawing.graph, number), shape(&node.shape)];
    if node.params() > 0 {
        lines.push(format!("{} params", short(node.params())));
    }
    if node.macs > 0 {
        lines.push(format!("{} MACs", short(node.macs)));
    }
    lines.retain(|line| !line.is_empty());
    format!("{}n{number} [label={}];\n", "  ".repeat(depth), quoted(&lines.join("\n")))
}

/// A text between quotes, its line breaks as Graphviz has them.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
