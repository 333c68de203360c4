//! Drawings say what a graph holds, whatever the network.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::collections::HashMap;

use convzoo_draw::{DrawError, Drawing, Histogram};
use convzoo_graph::{Activation, Builder, Graph, Operation, Parameter, Window};

/// A graph in the making whose layers have names.
struct Net {
    graph: Builder,
    names: HashMap<u64, String>,
    parameters: HashMap<u64, String>,
}

impl Net {
    fn new() -> Self {
        Self { graph: Builder::new([3, 32, 32]), names: HashMap::new(), parameters: HashMap::new() }
    }

    fn layer(&mut self, name: &str, operation: Operation, input: usize, weight: &[usize]) -> usize {
        let id = self.names.len() as u64 + 1;
        self.names.insert(id, name.to_owned());
        self.parameters.insert(id, format!("{name}.weight"));
        let weight = Parameter { name: String::new(), shape: weight.to_vec(), trainable: true, id };
        let weights = if weight.shape.is_empty() { Vec::new() } else { vec![weight] };
        self.graph.add_layer(operation, &[input], Some(id), weights)
    }

    /// A convolution, a batch norm and a ReLU: `NAME.conv` and `NAME.bn`.
    fn unit(&mut self, name: &str, input: usize, [inputs, outputs]: [usize; 2], size: usize) -> usize {
        let window = Window::square(size).padded(size / 2);
        let conv = Operation::Conv2d { outputs, window, groups: 1, bias: false };
        let maps = self.layer(&format!("{name}.conv"), conv, input, &[outputs, inputs, size, size]);
        let maps = self.layer(&format!("{name}.bn"), Operation::BatchNorm2d { epsilon: 1e-5 }, maps, &[outputs]);
        self.graph.add(Operation::Activation(Activation::Relu), &[maps])
    }

    /// Two convolutions and a sum.
    fn residual(&mut self, name: &str, input: usize) -> usize {
        let maps = self.unit(&format!("{name}.0"), input, [8, 8], 3);
        let maps = self.unit(&format!("{name}.1"), maps, [8, 8], 3);
        let sum = self.graph.add(Operation::Add, &[maps, input]);
        self.graph.add(Operation::Activation(Activation::Relu), &[sum])
    }

    fn finish(self, output: usize) -> Graph {
        self.graph.finish(output).unwrap().named(&self.names, &self.parameters)
    }
}

/// A stem, a module of three branches, five residual blocks, a linear layer.
fn network() -> Drawing {
    let mut net = Net::new();
    let stem = net.unit("stem", 0, [3, 6], 3);
    let narrow = net.unit("mixed.branch1", stem, [6, 2], 1);
    let wide = net.unit("mixed.branch2.0", stem, [6, 3], 1);
    let wide = net.unit("mixed.branch2.1", wide, [3, 5], 3);
    let pool = Operation::MaxPool2d { window: Window::square(3).padded(1), ceil_mode: false };
    let pooled = net.layer("mixed.pool", pool, stem, &[]);
    let pooled = net.unit("mixed.branch3", pooled, [6, 1], 1);
    let mut maps = net.graph.add(Operation::Concat, &[narrow, wide, pooled]);
    for block in 0..5 {
        maps = net.residual(&format!("blocks.{block}"), maps);
    }
    let pooled = net.layer("avgpool", Operation::AdaptiveAvgPool2d { output: [1, 1] }, maps, &[]);
    let vector = net.graph.add(Operation::Flatten, &[pooled]);
    let logits = net.layer("fc", Operation::Linear { outputs: 10 }, vector, &[10, 8]);
    Drawing::new("a <network>", net.finish(logits))
}

/// The texts of a drawing.
fn texts(svg: &str) -> Vec<&str> {
    svg.split("<text").skip(1).filter_map(|text| text.split_once('>')?.1.split('<').next()).collect()
}

#[test]
fn blocks_that_are_alike_are_folded_and_a_concatenation_says_what_goes_into_it() {
    let svg = network().svg();
    let texts = texts(&svg);
    assert!(texts.contains(&"blocks.0–4"), "{texts:?}");
    assert!(texts.contains(&"×5, 2 conv, 1 sum"), "{texts:?}");
    assert!(texts.contains(&"2 + 5 + 1 channels"), "{texts:?}");
    // In the module, layers are written with what follows them, and without the module's name.
    for text in ["branch1", "branch2.1", "Conv 1×1 · BN · ReLU", "MaxPool 3×3", "8×32×32", "a &lt;network&gt;"] {
        assert!(texts.contains(&text), "no {text} in {texts:?}");
    }
    assert!(!texts.contains(&"blocks.3"), "a block that is like another is drawn twice: {texts:?}");
    // Five blocks of two 3×3 convolutions of 8 channels.
    let macs = 5 * 2 * 8 * 8 * 9 * 32 * 32;
    let written = format!("{:.1} M MACs", f64::from(macs) / 1e6);
    assert!(texts.iter().any(|text| text.contains(&written)), "no {written} in {texts:?}");
}

#[test]
fn a_block_is_drawn_alone_and_an_unknown_one_told() {
    let drawing = network();
    let svg = drawing.block_svg("blocks.1").unwrap();
    let texts = texts(&svg);
    assert_eq!(texts.iter().filter(|text| **text == "Conv 3×3 · BN · ReLU").count(), 2, "{texts:?}");
    assert!(texts.contains(&"Add · ReLU") && texts.contains(&"from blocks.0"), "{texts:?}");
    let DrawError::Block { nearest, .. } = drawing.block_svg("block.1").unwrap_err() else {
        panic!("another error");
    };
    assert_eq!(nearest[0], "blocks.1");
    assert!(drawing.block_svg("").is_err(), "the network is no block of itself");
}

#[test]
fn a_page_has_every_layer_once_and_links_that_lead_somewhere() {
    let weights = Histogram::of(&[0.5, -0.5, 0.25]).unwrap();
    let page = network().with_histograms([("fc.weight".to_owned(), weights)]).page().html();
    let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ids.len(), "an identity stands twice: {ids:?}");
    let links: Vec<&str> = page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() > 30 && links.iter().all(|link| ids.contains(link)), "{links:?} beside {ids:?}");
    // One convolution before, four in branches, ten in blocks.
    assert_eq!(page.matches("<h4>Conv2d <code>").count(), 15);
    assert!(page.contains("becomes channels 2–6"), "what is concatenated has no place");
    assert!(page.contains("5 alike:"), "blocks that are alike do not know each other");
    assert_eq!(page.matches("<figure class=\"histogram\">").count(), 1);
    assert!(page.contains("from -0.5 to 0.5"), "the histogram has no ends");
    assert!(page.contains("3×3 pixels of the image, every pixel, the first around (0, 0)"), "the stem sees nothing");
    for request in ["src=", "href=\"http", "url(", "@import", "fetch("] {
        assert!(!page.contains(request), "the page asks for something: {request}");
    }
}

#[test]
fn graphviz_gets_all_nodes_and_edges_with_blocks_as_clusters() {
    let dot = network().dot();
    assert!(dot.starts_with("digraph \"a <network>\" {") && dot.ends_with("}\n"), "{dot}");
    // Units of three nodes: a stem, four in branches, two in each block; a pool, three edges into the concatenation, a
    // sum's two and a ReLU in each block, three nodes at the end.
    assert_eq!(dot.matches(" -> ").count(), 3 + 4 * 3 + 1 + 3 + 5 * (2 * 3 + 2 + 1) + 3, "{dot}");
    assert!(dot.contains("label=\"blocks.4\"") && dot.contains("[label=\"8×32×32\"]"), "{dot}");
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
}

#[test]
fn what_feeds_each_other_is_opened_and_drawn() {
    // Layers of two blocks by turns, as no tree of blocks could be drawn.
    let mut net = Net::new();
    let a = net.unit("a.0", 0, [3, 4], 1);
    let b = net.unit("b.0", a, [4, 4], 1);
    let a = net.unit("a.1", b, [4, 4], 1);
    let b = net.unit("b.1", a, [4, 4], 1);
    let svg = Drawing::new("tangled", net.finish(b)).svg();
    let texts = texts(&svg);
    for name in ["a.0", "b.0", "a.1", "b.1"] {
        assert!(texts.contains(&name), "no {name} in {texts:?}");
    }
}
