//! Which blocks a network is made of, by the names of its layers.

use std::collections::HashMap;

use convzoo_graph::{Graph, Operation};

/// A block: `layer1.0`, say. Block 0 is the network.
#[derive(Debug, Default)]
pub struct Block {
    /// Its name; empty for the network.
    pub path: String,
    /// What it is made of, in the order in which it runs.
    pub items: Vec<Item>,
    /// All its nodes, those of the blocks in it too, in the order in which they run.
    pub nodes: Vec<usize>,
}

/// A part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Node(usize),
    Block(usize),
}

/// The blocks of a graph, all nodes but the images in them.
pub fn blocks(graph: &Graph) -> Vec<Block> {
    let mut blocks = vec![Block::default()];
    let mut known = HashMap::from([(String::new(), 0)]);
    for (node, path) in owners(graph).iter().enumerate().skip(1) {
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
        let mut block = 0;
        blocks[0].nodes.push(node);
        for end in ends.filter(|&end| end > 0) {
            let new = blocks.len();
            let inner = *known.entry(path[..end].to_owned()).or_insert(new);
            if inner == new {
                blocks.push(Block { path: path[..end].to_owned(), ..Block::default() });
                blocks[block].items.push(Item::Block(new));
            }
            block = inner;
            blocks[block].nodes.push(node);
        }
        blocks[block].items.push(Item::Node(node));
    }
    // A block that is nothing but another is that: `features.3`, all of whose layers are in `features.3.conv`.
    for block in 1..blocks.len() {
        while let [Item::Block(inner)] = blocks[block].items[..] {
            blocks[block].items = std::mem::take(&mut blocks[inner].items);
        }
    }
    blocks
}

/// The name of the block that each node belongs to.
fn owners(graph: &Graph) -> Vec<String> {
    let nodes = graph.nodes();
    let dominators = dominators(graph);
    let mut owners: Vec<String> = Vec::with_capacity(nodes.len());
    for (number, node) in nodes.iter().enumerate() {
        let owner = match node.inputs.as_slice() {
            _ if !node.name.is_empty() => parent(&node.name).to_owned(),
            [] => String::new(),
            [input] => owners[*input].clone(),
            // A sum or concatenation is of the block that holds all layers since its branches parted.
            inputs => {
                let parted = dominators[number];
                let between = (parted + 1..number).filter(|between| !nodes[*between].name.is_empty());
                let common = between.map(|between| owners[between].as_str()).reduce(common);
                let last = inputs.iter().max().map_or("", |input| owners[*input].as_str());
                common.unwrap_or(last).to_owned()
            }
        };
        owners.push(owner);
    }
    // Channels are taken by the block that needs them, not by the one that they come from.
    for (number, users) in graph.users().iter().enumerate().rev() {
        if let (Operation::Channels { .. }, Some(user)) = (&nodes[number].operation, users.first()) {
            owners[number] = owners[*user].clone();
        }
    }
    owners
}

fn parent(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// The innermost block that both are in.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let equal = a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b);
    let length: usize = equal.map(|(part, _)| part.len() + 1).sum();
    &a[..length.saturating_sub(1)]
}

/// The last node that every way from the images to a node leads through, the node itself left out.
fn dominators(graph: &Graph) -> Vec<usize> {
    let mut dominators = vec![0; graph.nodes().len()];
    for (number, node) in graph.nodes().iter().enumerate().skip(1) {
        let meet = |mut a: usize, mut b: usize| {
            while a != b {
                match a > b {
                    true => a = dominators[a],
                    false => b = dominators[b],
                }
            }
            a
        };
        dominators[number] = node.inputs.iter().copied().reduce(meet).unwrap_or(0);
    }
    dominators
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_blocks_in_common_and_not_letters() {
        assert_eq!(common("a.branch1.0", "a.branch2"), "a");
        assert_eq!(common("layer1.1", "layer1.10"), "layer1");
        assert_eq!(common("x", "y"), "");
        assert_eq!(common("x.y", "x.y"), "x.y");
        assert_eq!((parent("layer1.0.conv1"), parent("fc")), ("layer1.0", ""));
    }
}
