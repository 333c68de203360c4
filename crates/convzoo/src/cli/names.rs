//! Arguments that are names, which shells complete.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, Error};
use convzoo::{data, train, variants};

/// Takes any text; the names are for shells alone, for the program tells more of one that is not there than clap does.
#[derive(Clone, Copy)]
pub struct Names(fn() -> Vec<&'static str>);

/// Networks.
pub const MODELS: Names = Names(|| variants().map(|variant| variant.name).collect());

/// Families of networks.
pub const FAMILIES: Names = Names(|| {
    let mut families: Vec<_> = variants().map(|variant| variant.family).collect();
    families.sort_unstable();
    families.dedup();
    families
});

/// Data sets.
pub const DATA: Names = Names(|| data::names().to_vec());

/// Recipes.
pub const RECIPES: Names = Names(|| train::recipe_names().collect());

impl TypedValueParser for Names {
    type Value = String;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter().map(PossibleValue::new)))
    }
}
