use convzoo_blocks::graph::GraphError;
use thiserror::Error;

/// Why a network cannot be made or run.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ModelError {
    /// No network of this name.
    #[error("there is no network named '{name}'; {}", did_you_mean(.nearest))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest names there are.
        nearest: Vec<&'static str>,
    },
    /// Zero classes.
    #[error("{name} needs at least one class")]
    NoClasses {
        /// The network.
        name: &'static str,
    },
    /// Zero input channels.
    #[error("{name} needs at least one input channel")]
    NoChannels {
        /// The network.
        name: &'static str,
    },
    /// More classes or channels than any use has.
    #[error("{name} is made for at most {most} {what}, not {count}")]
    TooMany {
        /// The network.
        name: &'static str,
        /// Classes or input channels.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// An option that the network has no use for.
    #[error("{name} has no option '{option}'; it takes {}", list(.takes))]
    Option {
        /// The network.
        name: &'static str,
        /// The option set.
        option: &'static str,
        /// The options it takes.
        takes: Vec<&'static str>,
    },
    /// An option's value that makes no sense.
    #[error("{option} must be {expected}, not {value}")]
    Value {
        /// The option set.
        option: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Images smaller than the network's downsampling allows.
    #[error("{name} needs images of at least {minimum}×{minimum}, not {}×{}", .size[0], .size[1])]
    TooSmall {
        /// The network.
        name: &'static str,
        /// Height and width offered.
        size: [usize; 2],
        /// The smallest side.
        minimum: usize,
    },
    /// An image size that the network's downsampling does not divide evenly.
    #[error("{name} takes images whose sides are multiples of {unit}, not {}×{}", .size[0], .size[1])]
    NotMultiple {
        /// The network.
        name: &'static str,
        /// Height and width offered.
        size: [usize; 2],
        /// What sides must be multiples of, and the smallest of them.
        unit: usize,
    },
    /// An image size that the network's fully-connected layers do not fit.
    #[error("{name} takes images of exactly {0}×{1}, not {2}×{3}", .expected[0], .expected[1], .size[0], .size[1])]
    FixedSize {
        /// The network.
        name: &'static str,
        /// Height and width offered.
        size: [usize; 2],
        /// Height and width needed.
        expected: [usize; 2],
    },
    /// No layer or block of this name.
    #[error("the network has no layer or block '{layer}'; the nearest are {}", .nearest.join(", "))]
    Layer {
        /// What was asked for.
        layer: String,
        /// The nearest names there are.
        nearest: Vec<String>,
    },
    /// An operation that does not take its inputs.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// No published weights of this name.
    #[error("no weights '{weights}' are published for {name}; there are {}", list(.published))]
    Weights {
        /// The network.
        name: &'static str,
        /// What was asked for.
        weights: String,
        /// The names of those published.
        published: Vec<&'static str>,
    },
    /// The number of labels is not the number of classes.
    #[error("{name} has {classes} classes and is given {labels} labels; it takes one for each class")]
    Labels {
        /// The network.
        name: &'static str,
        /// Its classes.
        classes: usize,
        /// How many labels were given.
        labels: usize,
    },
    /// Images with other channels than the network was made for.
    #[error("{name} was made for {expected} input channels and is given {found}")]
    Channels {
        /// The network.
        name: &'static str,
        /// Channels it was made for.
        expected: usize,
        /// Channels offered.
        found: usize,
    },
}

fn did_you_mean(nearest: &[&str]) -> String {
    match nearest {
        [] => "`convzoo list` names them all".to_owned(),
        _ => format!("did you mean {}? `convzoo list` names them all", list(nearest)),
    }
}

fn list(names: &[&str]) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.to_string(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
