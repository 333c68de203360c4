/// Implements a trait for each backend of this build, all of it by default; for their autodiff forms it is more.
macro_rules! by_default_on_all_backends {
    ($name:ident) => {
        #[cfg(feature = "flex")]
        impl $name for burn::backend::Flex {}
        #[cfg(feature = "ndarray")]
        impl $name for burn::backend::NdArray {}
        #[cfg(feature = "tch")]
        impl $name for burn::backend::LibTorch {}
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        impl $name for burn::backend::Cube {}
        #[cfg(feature = "remote")]
        impl $name for burn::backend::Remote {}
    };
}
pub(crate) use by_default_on_all_backends;
