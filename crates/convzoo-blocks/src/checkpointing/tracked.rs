//! The parameters of a segment, out of the network's autodiff graph and in one of their own.

use std::collections::HashSet;

use burn::backend::DispatchTensor;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

use crate::features::Segment;
use crate::strategy::{keeping, like};

/// A segment whose parameters are constants.
pub(super) struct Constant<S> {
    segment: S,
    /// Those that learn.
    trained: HashSet<ParamId>,
}

impl<S: Segment> Constant<S> {
    /// The segment's output.
    pub fn pass(&self, input: Tensor<4>) -> Tensor<4> {
        self.segment.pass(input)
    }
}

/// Makes constants of the parameters that learn, and returns them in the order of the module tree.
pub(super) fn detach<S: Module>(segment: S) -> (Constant<S>, Vec<DispatchTensor>) {
    /// Running statistics do not learn; the copies share them with the segment.
    #[derive(Default)]
    struct Detach {
        ids: HashSet<ParamId>,
        tensors: Vec<DispatchTensor>,
    }
    impl ModuleMapper for Detach {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, value, mapper) = param.consume();
            if !value.is_require_grad() {
                return Param::from_mapped_value(id, value, mapper);
            }
            let constant = like(value.clone().without_autodiff(), &value);
            self.ids.insert(id);
            self.tensors.push(keeping(value).into_dispatch());
            Param::from_mapped_value(id, constant, mapper)
        }
    }
    let mut detach = Detach::default();
    let segment = segment.map(&mut detach);
    (Constant { segment, trained: detach.ids }, detach.tensors)
}

/// Takes a parameter's gradient, if it has one.
pub(super) type Leaf = Box<dyn FnOnce(&mut Gradients) -> Option<DispatchTensor>>;

/// Has the parameters that learn learn again, as leaves of a new graph, and returns these in the order of [`detach`].
pub(super) fn track<S: Module>(Constant { segment, trained }: Constant<S>) -> (S, Vec<Leaf>) {
    struct Track {
        ids: HashSet<ParamId>,
        leaves: Vec<Leaf>,
    }
    impl ModuleMapper for Track {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !self.ids.contains(&param.id) {
                return param;
            }
            let (id, value, mapper) = param.consume();
            let leaf = value.require_grad();
            let own = leaf.clone();
            self.leaves.push(Box::new(move |gradients| own.grad_remove(gradients).map(Tensor::into_dispatch)));
            Param::from_mapped_value(id, leaf, mapper)
        }
    }
    let mut track = Track { ids: trained, leaves: Vec::new() };
    let segment = segment.map(&mut track);
    (segment, track.leaves)
}
