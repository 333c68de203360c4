use convzoo_graph::ReceptiveField;

use super::VisualizeError;
use crate::{Classifier, LayerSummary, Summary};

/// A layer that a forward pass runs through.
#[derive(Debug, Clone)]
pub struct SeenLayer {
    /// Its name, kind, output shape and receptive field.
    pub summary: LayerSummary,
    node: usize,
    field: ReceptiveField,
}

/// A rectangle of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// Rows, at least one.
    pub height: usize,
    /// Columns, at least one.
    pub width: usize,
}

/// The layers that an image of `input`, `[channels, height, width]`, passes, in the order of their calls. Nothing is
/// computed.
///
/// # Errors
/// The network does not take such images.
pub fn layers<N: Classifier>(network: &N, input: [usize; 3]) -> Result<Vec<SeenLayer>, VisualizeError> {
    let graph = network.graph(input)?;
    let fields = graph.receptive_fields();
    let layers = Summary::new(&graph, network).layers;
    let seen = |((node, _), summary)| SeenLayer { summary, node, field: fields[node] };
    Ok(graph.layers().zip(layers).map(seen).collect())
}

/// The layer of this name, or an error that says the nearest names.
pub fn find_layer<'a>(layers: &'a [SeenLayer], name: &str) -> Result<&'a SeenLayer, VisualizeError> {
    layers.iter().find(|layer| layer.summary.name == name).ok_or_else(|| {
        let names = || layers.iter().map(|layer| layer.summary.name.clone());
        let inside: Vec<_> =
            names().filter(|layer| layer.strip_prefix(name).is_some_and(|l| l.starts_with('.'))).collect();
        let nearest = if inside.is_empty() { nearest(name, names()) } else { inside };
        VisualizeError::Layer { name: name.to_owned(), nearest }
    })
}

/// The few names that are most like `name`, the likest first.
pub(super) fn nearest(name: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let likeness = |layer: &str| strsim::jaro_winkler(&name.to_lowercase(), &layer.to_lowercase());
    let mut names: Vec<_> =
        names.map(|layer| (likeness(&layer), layer)).filter(|(likeness, _)| *likeness > 0.6).collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    names.into_iter().take(5).map(|(_, layer)| layer).collect()
}

impl SeenLayer {
    /// Its node in the network's graph.
    pub(crate) fn node(&self) -> usize {
        self.node
    }

    /// Channels, height and width of the output; a vector has maps of 1×1.
    pub fn output(&self) -> [usize; 3] {
        let side = |i| self.summary.output.get(i).copied().unwrap_or(1);
        [side(0), side(1), side(2)]
    }

    /// The receptive field of the cell of the output at `[row, column]` on an image of `[height, width]`.
    pub fn sees(&self, cell: [usize; 2], image: [usize; 2]) -> Patch {
        let span = |i: usize| match self.field.size[i] {
            None => (0, image[i]),
            Some(size) => {
                let middle = self.field.center[i] + (cell[i] * self.field.stride[i]) as f64;
                let first = middle - (size - 1) as f64 / 2.0;
                let bound = |at: f64| at.round().clamp(0.0, image[i] as f64) as usize;
                let (first, end) = (bound(first), bound(first + size as f64));
                // The cells of a ceiling pooling may hang over the edge.
                let first = first.min(image[i] - 1);
                (first, end.max(first + 1))
            }
        };
        let ((top, bottom), (left, right)) = (span(0), span(1));
        Patch { top, left, height: bottom - top, width: right - left }
    }
}
