//! What is written on a drawing.

use convzoo_graph::{Graph, Node, Operation, Window};

/// 1498376192 as `1.50 G`.
pub fn short(number: usize) -> String {
    let number = number as f64;
    match number {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n}"),
    }
}

/// 61706 as `61,706`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// A number with four digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        m if m == 0.0 || (1e-3..1e4).contains(&m) => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.2e}"),
    }
}

/// `64×56×56`.
pub fn shape(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// `3×3`, or a single number's text where both are to be the same.
pub fn sides([vertical, horizontal]: [usize; 2]) -> String {
    format!("{vertical}×{horizontal}")
}

/// One number where both sides are the same.
pub fn side([vertical, horizontal]: [usize; 2]) -> String {
    if vertical == horizontal { vertical.to_string() } else { sides([vertical, horizontal]) }
}

fn window(window: &Window) -> String {
    let stride = if window.stride == [1, 1] { String::new() } else { format!(" /{}", side(window.stride)) };
    let dilation = match window.dilation {
        [1, 1] => String::new(),
        dilation => format!(", dilation {}", side(dilation)),
    };
    format!("{}{stride}{dilation}", sides(window.kernel))
}

/// An operation in a few letters, as papers' figures have it. Of a convolution by groups, `channels` are its input's.
pub fn brief(operation: &Operation, channels: usize) -> String {
    match operation {
        Operation::Input => "images".to_owned(),
        Operation::Conv2d { window: slide, groups, .. } => match groups {
            1 => format!("Conv {}", window(slide)),
            groups if *groups == channels => format!("DWConv {}", window(slide)),
            groups => format!("Conv {}, {groups} groups", window(slide)),
        },
        Operation::BatchNorm2d { .. } => "BN".to_owned(),
        Operation::LayerNorm2d { .. } => "LN".to_owned(),
        Operation::LocalResponseNorm { .. } => "LRN".to_owned(),
        Operation::LayerScale => "layer scale".to_owned(),
        Operation::MaxPool2d { window: slide, .. } => format!("MaxPool {}", window(slide)),
        Operation::AvgPool2d { window: slide, .. } => format!("AvgPool {}", window(slide)),
        Operation::AdaptiveAvgPool2d { output: [1, 1] } => "global AvgPool".to_owned(),
        Operation::AdaptiveAvgPool2d { output } => format!("AvgPool to {}", sides(*output)),
        Operation::GlobalMaxPool2d => "global MaxPool".to_owned(),
        Operation::Gate => "multiply".to_owned(),
        Operation::Channels { first, count } => format!("channels {first}–{}", first + count - 1),
        Operation::ChannelShuffle { .. } => "shuffle".to_owned(),
        Operation::Scale(factor) => format!("×{}", number(*factor)),
        Operation::PadShortcut { stride, .. } => format!("zero-padded /{stride}"),
        Operation::StochasticDepth { .. } => "drop path".to_owned(),
        Operation::Opaque { name, .. } => name.clone(),
        operation => operation.kind().to_owned(),
    }
}

/// The operation of a node of `graph` in a few letters.
pub fn brief_of(graph: &Graph, node: usize) -> String {
    let Node { operation, inputs, .. } = &graph.nodes()[node];
    let channels = inputs.first().map_or(0, |input| graph.nodes()[*input].shape[0]);
    brief(operation, channels)
}

/// What an operation is set to, as names and values.
pub fn attributes(operation: &Operation) -> Vec<(&'static str, String)> {
    let slide = |window: &Window| {
        let mut said =
            vec![("kernel", sides(window.kernel)), ("stride", side(window.stride)), ("padding", side(window.padding))];
        if window.dilation != [1, 1] {
            said.push(("dilation", side(window.dilation)));
        }
        said
    };
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    match operation {
        Operation::Conv2d { window, groups, bias, .. } => {
            [slide(window), vec![("groups", groups.to_string()), ("bias", yes(*bias))]].concat()
        }
        Operation::MaxPool2d { window, ceil_mode } => [slide(window), vec![("ceil mode", yes(*ceil_mode))]].concat(),
        Operation::AvgPool2d { window, ceil_mode, count_include_pad } => {
            let more = vec![("ceil mode", yes(*ceil_mode)), ("padding counts", yes(*count_include_pad))];
            [slide(window), more].concat()
        }
        Operation::AdaptiveAvgPool2d { output } => vec![("output", sides(*output))],
        Operation::BatchNorm2d { epsilon } | Operation::LayerNorm2d { epsilon } => {
            vec![("epsilon", number(*epsilon))]
        }
        Operation::LocalResponseNorm { size, alpha, beta, k } => {
            vec![("channels", size.to_string()), ("α", number(*alpha)), ("β", number(*beta)), ("k", number(*k))]
        }
        Operation::Channels { first, count } => {
            vec![("first channel", first.to_string()), ("channels", count.to_string())]
        }
        Operation::ChannelShuffle { groups } => vec![("groups", groups.to_string())],
        Operation::Scale(factor) => vec![("factor", number(*factor))],
        Operation::PadShortcut { stride, zeros: [before, after] } => {
            vec![("stride", stride.to_string()), ("zero channels", format!("{before} before, {after} after"))]
        }
        Operation::Dropout { probability } | Operation::StochasticDepth { probability } => {
            vec![("probability", number(*probability))]
        }
        Operation::Linear { outputs } => vec![("outputs", outputs.to_string())],
        _ => Vec::new(),
    }
}

/// The names of blocks in a row as one: `layer1.0` to `layer1.2` as `layer1.0–2`.
pub fn range(first: &str, last: &str) -> String {
    let stem = first.trim_end_matches(|letter: char| letter.is_ascii_digit());
    match last.strip_prefix(stem) {
        Some(number) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{first}–{number}")
        }
        _ => format!("{first} – {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_short() {
        assert_eq!([short(999), short(61_706), short(1_498_376_192)], ["999", "61.7 k", "1.50 G"]);
        assert_eq!([thousands(7), thousands(61_706), thousands(1_000_000)], ["7", "61,706", "1,000,000"]);
        assert_eq!([number(0.0), number(0.17), number(1e-5), number(-2.0)], ["0", "0.17", "1.00e-5", "-2"]);
        assert_eq!(range("layer1.0", "layer1.12"), "layer1.0–12");
        assert_eq!(range("a.x", "a.y"), "a.x – a.y");
    }

    #[test]
    fn convolutions_read_as_in_papers() {
        let slide = Window::square(3).strided(2).padded(1);
        let conv = |groups| Operation::Conv2d { outputs: 64, window: slide, groups, bias: false };
        assert_eq!(brief(&conv(1), 32), "Conv 3×3 /2");
        assert_eq!(brief(&conv(32), 32), "DWConv 3×3 /2");
        assert_eq!(brief(&conv(8), 32), "Conv 3×3 /2, 8 groups");
        let wide = Operation::Conv2d {
            outputs: 8,
            window: Window { kernel: [1, 7], ..Window::square(1) },
            groups: 1,
            bias: true,
        };
        assert_eq!(brief(&wide, 8), "Conv 1×7");
    }
}
