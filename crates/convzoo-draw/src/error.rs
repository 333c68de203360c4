use thiserror::Error;

/// Why something of a network cannot be drawn.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrawError {
    /// The network has no such block.
    #[error("{network} has no block '{block}'{}", suggestion(.nearest))]
    Block {
        /// The network.
        network: String,
        /// What was asked for.
        block: String,
        /// Blocks that are called alike.
        nearest: Vec<String>,
    },
}

fn suggestion(names: &[String]) -> String {
    match names {
        [] => "; it is drawn whole".to_owned(),
        names => format!("; did you mean {}?", names.join(", ")),
    }
}
