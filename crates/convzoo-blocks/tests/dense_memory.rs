//! What the dense block's memory-saving form saves, measured. The only test of its process, whose memory it reads.

#![allow(clippy::unwrap_used)] // a panic is how a test fails
#![cfg(target_os = "linux")]

use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use convzoo_blocks::DenseBlockConfig;

/// MiB of memory in use, or the most since `forget_peak`, as the kernel counts.
fn resident(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[test]
fn the_memory_saving_form_needs_less_than_two_thirds() {
    let device = Device::flex().autodiff();
    // The third block of DenseNet-121, on smaller feature maps.
    let config = DenseBlockConfig::new(256, 24, 32).with_bottleneck(Some(4));
    let input = Tensor::<4>::random([8, 256, 20, 20], Distribution::Default, &device).require_grad();
    // Of both: the allocator keeps what the first leaves, and the second takes that again.
    let before = resident("VmRSS");
    let [saving, plain] = [true, false].map(|memory_efficient| {
        let block = config.clone().with_memory_efficient(memory_efficient).init(&device).materialize();
        forget_peak();
        let start = Instant::now();
        let grads = block.forward(input.clone()).square().mean().backward();
        assert!(input.grad(&grads).is_some());
        let peak = resident("VmHWM") - before;
        println!("memory_efficient {memory_efficient}: {peak:.0} MiB more, {:.2?}", start.elapsed());
        peak
    });
    // Typically 0.5, forward and backward together; the plain form keeps some 4 times as much after the forward pass.
    assert!(saving < plain * 2.0 / 3.0, "{saving:.0} MiB against {plain:.0} MiB");
}
