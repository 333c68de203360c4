/// A published file.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The name it gets.
    pub file: String,
    /// Where it can be had, in the order to try.
    pub urls: Vec<String>,
    /// Its SHA-256 in lower-case hexadecimal, or the start of it.
    pub sha256: String,
    /// Its length, where that is published.
    pub bytes: Option<u64>,
}
