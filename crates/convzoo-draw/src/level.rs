//! What stands in one drawing: a block's parts, closed or opened, and what flows between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use convzoo_graph::{Graph, Operation};

use crate::tree::{Block, Item};

/// A box of a drawing.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// Its nodes, in the order in which they run.
    pub nodes: Vec<usize>,
    /// The closed block it stands for, unless that is a layer with what follows it.
    pub block: Option<usize>,
    /// The name of its block or first layer; empty where it is neither.
    pub name: String,
    /// Whether it stands for what comes from outside of the drawing.
    pub outside: bool,
    /// The boxes after it that are like it and are folded into it.
    pub alike: Vec<Vertex>,
}

/// A drawing before it is laid out: boxes, and which of them feed which.
#[derive(Debug)]
pub struct Level {
    pub vertices: Vec<Vertex>,
    pub edges: Vec<(usize, usize)>,
}

/// Whether an operation is written with the layer before it: it changes values and mixes no pixels.
fn follows(operation: &Operation) -> bool {
    use Operation::*;
    matches!(
        operation,
        BatchNorm2d { .. }
            | LayerNorm2d { .. }
            | LayerScale
            | LocalResponseNorm { .. }
            | Activation(_)
            | Scale(_)
            | Dropout { .. }
            | StochasticDepth { .. }
            | ChannelShuffle { .. }
            | Flatten
    )
}

/// Reads drawings of blocks from a graph.
pub struct Reader<'a> {
    pub graph: &'a Graph,
    pub blocks: &'a [Block],
    users: Vec<Vec<usize>>,
}

impl<'a> Reader<'a> {
    pub fn new(graph: &'a Graph, blocks: &'a [Block]) -> Self {
        Self { graph, blocks, users: graph.users() }
    }

    /// A block with as many of the blocks in it opened, level by level, as leave at most `most` boxes; `may` says which.
    pub fn level(&self, block: usize, most: usize, may: impl Fn(&Self, usize) -> bool) -> Level {
        let mut opened = BTreeSet::new();
        let mut level = self.folded(block, &mut opened);
        loop {
            let closed =
                level.vertices.iter().filter(|vertex| vertex.alike.is_empty()).filter_map(|vertex| vertex.block);
            let closed: Vec<_> = closed.filter(|&block| may(self, block)).collect();
            // A block whose parts are all alike takes no more room opened.
            let folds = |block: &&usize| self.folded(**block, &mut BTreeSet::new()).inner() == 1;
            let free: BTreeSet<_> = closed.iter().filter(folds).copied().collect();
            let all: BTreeSet<_> = closed.into_iter().collect();
            let before = level.inner();
            let found = [all, free].into_iter().filter(|more| !more.is_empty()).find_map(|more| {
                let mut opened: BTreeSet<_> = opened.union(&more).copied().collect();
                let level = self.folded(block, &mut opened);
                (level.inner() <= most.max(before)).then_some((opened, level))
            });
            match found {
                Some(found) => (opened, level) = found,
                None => return level,
            }
        }
    }

    /// Whether a block's parts follow one another, without branches.
    pub fn is_chain(&self, block: usize) -> bool {
        let level = self.unfolded(block, &mut BTreeSet::new());
        let at_most_one = |of: fn(&(usize, usize)) -> usize| {
            let mut ends: Vec<_> = level.edges.iter().map(of).collect();
            ends.sort_unstable();
            ends.windows(2).all(|pair| pair[0] != pair[1])
        };
        at_most_one(|edge| edge.0) && at_most_one(|edge| edge.1)
    }

    fn folded(&self, block: usize, opened: &mut BTreeSet<usize>) -> Level {
        let level = self.unfolded(block, opened);
        self.fold(level)
    }

    /// A block's boxes and edges. Blocks that feed each other are opened, too.
    fn unfolded(&self, block: usize, opened: &mut BTreeSet<usize>) -> Level {
        loop {
            let mut vertices = Vec::new();
            self.collect(block, opened, &mut vertices);
            vertices.sort_by_key(|vertex: &Vertex| vertex.nodes[0]);
            self.join_followers(&mut vertices);
            let level = self.connect(vertices);
            let cyclic = level.cyclic();
            let tangled: Vec<_> = cyclic.iter().filter_map(|&vertex| level.vertices[vertex].block).collect();
            if tangled.is_empty() {
                return level;
            }
            opened.extend(tangled);
        }
    }

    fn collect(&self, block: usize, opened: &BTreeSet<usize>, vertices: &mut Vec<Vertex>) {
        for item in &self.blocks[block].items {
            match *item {
                Item::Block(inner) if opened.contains(&inner) => self.collect(inner, opened, vertices),
                Item::Block(inner) => {
                    let Block { path, nodes, .. } = &self.blocks[inner];
                    let block = (!self.is_unit(nodes)).then_some(inner);
                    let vertex =
                        Vertex { nodes: nodes.clone(), block, name: path.clone(), outside: false, alike: vec![] };
                    vertices.push(vertex);
                }
                Item::Node(node) => {
                    let name = self.graph.nodes()[node].name.clone();
                    vertices.push(Vertex { nodes: vec![node], block: None, name, outside: false, alike: vec![] });
                }
            }
        }
    }

    /// Whether nodes are a layer and what is written with it.
    fn is_unit(&self, nodes: &[usize]) -> bool {
        nodes.windows(2).all(|pair| self.joins(pair[0], pair[1]))
    }

    /// Whether `next` is written with `node`, which feeds nothing else.
    fn joins(&self, node: usize, next: usize) -> bool {
        let after = &self.graph.nodes()[next];
        after.inputs == [node] && follows(&after.operation) && self.users[node] == [next]
    }

    fn join_followers(&self, vertices: &mut Vec<Vertex>) {
        let mut ends: HashMap<usize, usize> = HashMap::new();
        let mut joined: Vec<Vertex> = Vec::with_capacity(vertices.len());
        for vertex in vertices.drain(..) {
            let first = vertex.nodes[0];
            let before = self.graph.nodes()[first].inputs.first().and_then(|input| ends.get(input));
            let before = before.copied().filter(|&before: &usize| {
                let last = joined[before].nodes.last().copied();
                vertex.block.is_none()
                    && joined[before].block.is_none()
                    && last.is_some_and(|last| self.joins(last, first))
            });
            let last = vertex.nodes.last().copied().unwrap_or(first);
            let at = match before {
                Some(before) => {
                    joined[before].nodes.extend(vertex.nodes);
                    if joined[before].name.is_empty() {
                        joined[before].name = vertex.name;
                    }
                    before
                }
                None => {
                    joined.push(vertex);
                    joined.len() - 1
                }
            };
            ends.insert(last, at);
        }
        *vertices = joined;
    }

    fn connect(&self, inner: Vec<Vertex>) -> Level {
        let mut at = BTreeMap::new();
        // What comes from outside stands before what it feeds.
        let own: BTreeSet<usize> = inner.iter().flat_map(|vertex| vertex.nodes.iter().copied()).collect();
        let inputs = own.iter().flat_map(|&node| self.graph.nodes()[node].inputs.iter().copied());
        let outside: BTreeSet<usize> = inputs.filter(|input| !own.contains(input)).collect();
        let outside = outside.into_iter().map(|node| {
            let name = self.origin(node);
            Vertex { nodes: vec![node], block: None, name, outside: true, alike: Vec::new() }
        });
        let vertices: Vec<Vertex> = outside.chain(inner).collect();
        for (number, vertex) in vertices.iter().enumerate() {
            at.extend(vertex.nodes.iter().map(|&node| (node, number)));
        }
        let mut edges = Vec::new();
        for (to, vertex) in vertices.iter().enumerate().filter(|(_, vertex)| !vertex.outside) {
            for &node in &vertex.nodes {
                for from in self.graph.nodes()[node].inputs.iter().map(|input| at[input]) {
                    if from != to && !edges.contains(&(from, to)) {
                        edges.push((from, to));
                    }
                }
            }
        }
        Level { vertices, edges }
    }

    /// What gives a node's output: the outermost block that ends with it, else the layer.
    fn origin(&self, node: usize) -> String {
        let mut ends = self.blocks[1..].iter().filter(|block| block.nodes.last() == Some(&node));
        ends.next().map_or_else(|| source(self.graph, node), |block| block.path.clone())
    }

    /// Blocks in a row that are alike become one.
    fn fold(&self, level: Level) -> Level {
        let Level { vertices, edges } = level;
        let signatures: Vec<_> = vertices
            .iter()
            .map(|vertex| vertex.block.map(|_| self.signature(&vertex.nodes, |operation| format!("{operation:?}"))))
            .collect();
        let only = |found: Vec<usize>| if let [one] = found[..] { Some(one) } else { None };
        let before = |vertex| only(edges.iter().filter(|edge| edge.1 == vertex).map(|edge| edge.0).collect());
        let after = |vertex| only(edges.iter().filter(|edge| edge.0 == vertex).map(|edge| edge.1).collect());
        let mut into: Vec<usize> = (0..vertices.len()).collect();
        let order = Level { vertices: vertices.clone(), edges: edges.clone() }.order();
        for vertex in order {
            let previous = before(vertex).filter(|&previous| after(previous) == Some(vertex));
            if let Some(previous) =
                previous.filter(|&previous| signatures[vertex].is_some() && signatures[previous] == signatures[vertex])
            {
                into[vertex] = into[previous];
            }
        }
        let mut place = HashMap::new();
        let mut folded: Vec<Vertex> = Vec::new();
        for (number, vertex) in vertices.into_iter().enumerate() {
            match place.get(&into[number]).copied() {
                Some(at) => {
                    let first: &mut Vertex = &mut folded[at];
                    first.alike.push(vertex);
                }
                None => {
                    place.insert(into[number], folded.len());
                    folded.push(vertex);
                }
            }
        }
        let edges = edges.iter().map(|&(from, to)| (place[&into[from]], place[&into[to]]));
        let edges = edges.filter(|(from, to)| from != to).collect();
        Level { vertices: folded, edges }
    }

    /// What nodes compute and how they are connected, each operation by the text that `said` gives; two blocks of the
    /// same text are alike.
    pub fn signature(&self, nodes: &[usize], said: impl Fn(&Operation) -> String) -> String {
        let places: HashMap<usize, usize> = nodes.iter().enumerate().map(|(place, &node)| (node, place)).collect();
        let mut outside: Vec<usize> = Vec::new();
        let mut text = String::new();
        for &node in nodes {
            let node = &self.graph.nodes()[node];
            text += &said(&node.operation);
            for input in &node.inputs {
                let known = outside.iter().position(|known| known == input);
                // Writing to a string does not fail.
                let _ = match places.get(input) {
                    Some(place) => write!(text, " {place}"),
                    None => write!(text, " <{}", known.unwrap_or(outside.len())),
                };
                if !places.contains_key(input) && known.is_none() {
                    outside.push(*input);
                }
            }
            text.push(';');
        }
        text
    }
}

/// What a node is called: its own name, or what it is and the name of the layer before it.
pub fn source(graph: &Graph, node: usize) -> String {
    let mut at = node;
    loop {
        let known = &graph.nodes()[at];
        match known.inputs.last() {
            _ if !known.name.is_empty() && at == node => return known.name.clone(),
            _ if !known.name.is_empty() => {
                return format!("{} after {}", graph.nodes()[node].operation.kind(), known.name);
            }
            Some(&input) => at = input,
            None => return "images".to_owned(),
        }
    }
}

impl Level {
    /// How many boxes stand for something inside.
    pub fn inner(&self) -> usize {
        self.vertices.iter().filter(|vertex| !vertex.outside).count()
    }

    /// Its boxes, each after those that feed it; those that feed each other are left out.
    pub fn order(&self) -> Vec<usize> {
        let mut waits: Vec<usize> =
            (0..self.vertices.len()).map(|vertex| self.edges.iter().filter(|edge| edge.1 == vertex).count()).collect();
        let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|&vertex| waits[vertex] == 0).collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some(vertex) = ready.pop_first() {
            order.push(vertex);
            for &(_, to) in self.edges.iter().filter(|edge| edge.0 == vertex) {
                waits[to] -= 1;
                if waits[to] == 0 {
                    ready.insert(to);
                }
            }
        }
        order
    }

    fn cyclic(&self) -> Vec<usize> {
        let ordered: BTreeSet<_> = self.order().into_iter().collect();
        (0..self.vertices.len()).filter(|vertex| !ordered.contains(vertex)).collect()
    }
}
