//! One step on several devices. burn-train's `MultiDevicesTrainStep` hands over what they give in the order in which it
//! arrives, and runs them side by side on one generator of random numbers: no two runs are the same.

use burn::module::{Module, ModuleDisplay, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::container::TensorContainer;
use burn::tensor::{Device, Tensor};
use burn::train::{ClassificationOutput, TrainOutput, TrainStep};
use convzoo_models::Classifier;

use crate::{Batch, TrainableClassifier, seeds};

/// Trains a copy of `model` on each device with its batch, if it has one. Returns the model with the mean of the copies'
/// running statistics, and what the copies give, in the order of the devices and with gradients on the first.
///
/// The operations are issued in the devices' order too: those of a GPU or another machine run side by side all the same,
/// as nobody waits for them here, and random numbers are drawn in one order.
pub(crate) fn step<N: Classifier + ModuleDisplay>(
    model: TrainableClassifier<N>,
    devices: &[Device],
    batches: Vec<Option<Batch>>,
    seed: u64,
) -> (TrainableClassifier<N>, Vec<TrainOutput<ClassificationOutput>>) {
    // All copies before the first step: one made later would wait for that step's end. A copy for evaluation and back
    // has running statistics of its own, where a mere clone would share them.
    let copies: Vec<_> = devices.iter().map(|device| model.valid().train().fork(device)).collect();
    let places = devices.iter().zip(copies).zip(batches).enumerate();
    let (copies, outputs): (Vec<_>, Vec<_>) = places
        .filter_map(|(index, ((device, copy), batch))| {
            device.seed(seeds::of_device(seed, index));
            let output = TrainStep::step(&copy, batch?);
            Some((copy, output))
        })
        .unzip();
    let first = |TrainOutput { grads, item }| TrainOutput { grads: grads.to_device(&devices[0], &model), item };
    let outputs = outputs.into_iter().map(first).collect();
    (follow(model, &copies), outputs)
}

/// `model` with the mean of what its copies have changed without learning it: running statistics.
fn follow<M: Module>(model: M, copies: &[M]) -> M {
    let values = |copy: &M| {
        let mut values = Values(TensorContainer::new());
        // Updates are folded into a copy for evaluation.
        copy.valid().visit(&mut values);
        values.0
    };
    model.map(&mut Follow { copies: copies.iter().map(values).collect() })
}

struct Values(TensorContainer<ParamId>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.register(param.id, param.val());
    }
}

struct Follow {
    copies: Vec<TensorContainer<ParamId>>,
}

impl ModuleMapper for Follow {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, old, mapper) = param.consume();
        let share = 1.0 / self.copies.len() as f64;
        let values = self.copies.iter_mut().filter_map(|copy| copy.remove::<Tensor<D>>(&id));
        let new = if old.is_require_grad() {
            old
        } else {
            // Differences are added, so that what has not changed, such as a frozen weight, keeps its value.
            let changes = values.map(|value| Tensor::from_inner(value).to_device(&old.device()) - old.clone());
            match changes.reduce(|sum, change| sum + change) {
                Some(sum) => old + sum.mul_scalar(share),
                None => old,
            }
        };
        Param::from_mapped_value(id, new, mapper)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a panic is how a test fails
mod tests {
    use burn::tensor::{Distribution, Int};
    use convzoo_models::{Network, Options, create, tensor_names};

    use super::*;

    /// The values of a network's running statistics, in its order.
    fn running(model: &TrainableClassifier<Network>) -> Vec<f32> {
        let mut values = Values(TensorContainer::new());
        model.valid().visit(&mut values);
        let mut names: Vec<_> =
            tensor_names(&model.network).into_iter().filter(|(_, name)| name.contains("running_")).collect();
        names.sort_by(|a, b| a.1.cmp(&b.1));
        let value = |(id, _)| values.0.remove::<Tensor<1>>(&id).unwrap().try_into_vec_as::<f32>().unwrap();
        names.into_iter().flat_map(value).collect()
    }

    #[test]
    fn several_devices_leave_the_mean_of_their_running_statistics() {
        let device = Device::flex().autodiff();
        device.seed(1);
        let network = create("resnet20_cifar", &Options::default().with_classes(3), &device).unwrap();
        // They are drawn when they are first used.
        drop(network.clone().into_record());
        let batch = || Batch {
            images: Tensor::random([2, 3, 8, 8], Distribution::Normal(1.0, 2.0), &device),
            targets: Tensor::<1, Int>::from_ints([0, 2], &device),
            mixed: None,
        };
        let batches = [batch(), batch()];
        let after = |batches: Vec<Option<Batch>>| {
            let devices = vec![device.clone(); batches.len()];
            running(&step(TrainableClassifier::new(network.clone().valid().train()), &devices, batches, 0).0)
        };
        let [first, second] = batches.each_ref().map(|batch| after(vec![Some(batch.clone())]));
        let both = after(batches.map(Some).into());
        assert!(first.len() == second.len() && first != second, "the batches leave the same statistics");
        for ((first, second), both) in first.iter().zip(&second).zip(&both) {
            let mean = (first + second) / 2.0;
            assert!(
                (both - mean).abs() <= 1e-5 * mean.abs().max(1.0),
                "{both}, the mean of {first} and {second} is {mean}"
            );
        }
    }
}
