//! What holds for every network of the registry.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Device, Tensor};
use convzoo_blocks::observe::{self, Mode};
use convzoo_models::{Classifier, Network, Options, Sizes, create, variants};

/// Whether square images of this side leave something behind every layer.
fn passes(network: &Network, side: usize) -> bool {
    let [channels, ..] = network.input();
    let images = Tensor::zeros([1, channels, side, side], &Device::flex());
    let pass = AssertUnwindSafe(|| observe::records(Mode::Shapes, || network.forward(images)).1);
    catch_unwind(pass).is_ok_and(|records| records.iter().all(|record| !record.output.contains(&0)))
}

#[test]
fn the_smallest_size_is_the_smallest() {
    for variant in variants() {
        let name = variant.name;
        let network = create(name, &Options::default(), &Device::flex()).unwrap();
        let accepts = |side| network.check_input([network.input()[0], side, side]).is_ok();
        let check = |side, expected| {
            assert_eq!(passes(&network, side), expected, "{name} on {side}×{side}");
            assert_eq!(accepts(side), expected, "{name}: check of {side}×{side}");
        };
        match variant.sizes {
            Sizes::From(smallest) => {
                check(smallest, true);
                check(smallest - 1, false);
            }
            Sizes::MultiplesOf(unit) => {
                check(unit, true);
                check(2 * unit, true);
                check(unit / 2, false);
                check(unit + unit / 2, false);
            }
            Sizes::Fixed => check(variant.input[1], true),
        }
        assert!(accepts(variant.input[1]), "{name}: its own size");
    }
}
