//! What commands have in common: choosing a device, a precision, a network and data.

mod data;
mod device;
mod network;
mod precision;

pub use data::{DataArgs, preprocess};
pub use device::{DeviceArgs, DevicesArgs, Switch, host, make_threads};
pub use network::{NetworkArgs, TrainedArgs, WeightsArgs, load, model_of, split_model, with_labels};
pub use precision::{CALIBRATED, PrecisionArgs, batches, first_inputs, on_kernels};
