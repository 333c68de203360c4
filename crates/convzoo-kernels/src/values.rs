use std::ops::Deref;
use std::sync::Arc;

/// Weights that a network reads: its own, or those of a tensor with which it shares them.
#[derive(Clone)]
pub struct Values(Arc<dyn AsRef<[f32]> + Send + Sync>);

impl Values {
    /// Those of something that keeps them where they are.
    pub(crate) fn shared(keeper: impl AsRef<[f32]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(keeper))
    }
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        Self::shared(values)
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        (*self.0).as_ref()
    }
}
