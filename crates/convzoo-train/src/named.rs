use convzoo_models::Variant;

use crate::{Recipe, TrainError};

/// The recipes that come with the crate, by name.
macro_rules! recipes {
    ($($name:literal,)*) => {
        const RECIPES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../recipes/", $name, ".toml"))),)*];
    };
}

recipes! {
    "airbench",
    "alexnet",
    "bn_inception",
    "cifar10_fast",
    "convnext",
    "densenet",
    "densenet_cifar",
    "efficientnet",
    "efficientnet_v2",
    "fashion_mnist",
    "fractalnet",
    "googlenet",
    "inception_resnet_v2",
    "inception_v3",
    "inception_v4",
    "lenet",
    "mnasnet",
    "mnist",
    "mobilenet_v2",
    "mobilenet_v3",
    "nin",
    "nin_cifar",
    "preact_resnet",
    "preact_resnet_cifar",
    "regnet",
    "resnet",
    "resnet_cifar",
    "resnext",
    "resnext_cifar",
    "shufflenet_v2",
    "squeezenet",
    "stochastic_depth",
    "torchvision_v2",
    "transfer",
    "transfer_head",
    "vgg",
    "wide_resnet",
    "wide_resnet_cifar",
    "zfnet",
}

/// What recipes were once called, and what they are called now.
const RENAMED: &[(&str, &str)] = &[("cifar10", "cifar10_fast")];

/// The names of the recipes that come with the crate.
pub fn recipe_names() -> impl Iterator<Item = &'static str> {
    RECIPES.iter().map(|(name, _)| *name)
}

/// The file of the recipe of this name, or once of this name, that comes with the crate, comments and all.
pub fn recipe_text(name: &str) -> Option<&'static str> {
    let name = RENAMED.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
    RECIPES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

impl Recipe {
    /// The recipe of this name that comes with the crate.
    pub fn named(name: &str) -> Result<Self, TrainError> {
        let Some(text) = recipe_text(name) else {
            let near = recipe_names().map(|known| (strsim::normalized_damerau_levenshtein(name, known), known));
            let nearest = near.filter(|(similarity, _)| *similarity > 0.5).max_by(|a, b| a.0.total_cmp(&b.0));
            return Err(TrainError::UnknownRecipe {
                name: name.to_owned(),
                nearest: nearest.map(|(_, name)| name),
                known: recipe_names().collect(),
            });
        };
        Self::parse(text).map_err(|reason| TrainError::RecipeFile { path: name.into(), reason })
    }

    /// The name of the recipe that a network's family was trained by: for images of 32×32 `FAMILY_cifar` where there
    /// is one, else `FAMILY`.
    pub fn name_for(variant: &Variant) -> Option<&'static str> {
        let family = variant.family;
        let small = format!("{family}_cifar");
        let named = |wanted: &str| recipe_names().find(|name| *name == wanted);
        named(&small).filter(|_| variant.input[1] == 32).or_else(|| named(family))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use convzoo_models::variants;

    use super::*;

    #[test]
    fn every_recipe_can_be_read_and_makes_sense() {
        for name in recipe_names() {
            let recipe = Recipe::named(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            recipe.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: BTreeSet<_> = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(files, recipe_names().map(str::to_owned).collect(), "files in recipes/ and names here differ");
    }

    #[test]
    fn every_network_has_a_recipe() {
        for variant in variants() {
            assert!(Recipe::name_for(variant).is_some(), "{} of {} has none", variant.name, variant.family);
        }
        let name = |model| Recipe::name_for(convzoo_models::variant(model).unwrap());
        assert_eq!(name("resnet20_cifar"), Some("resnet_cifar"));
        assert_eq!(name("resnet50"), Some("resnet"));
        assert_eq!(name("lenet5"), Some("lenet"));
    }

    #[test]
    fn old_names_stand_for_recipes_that_have_others_now() {
        for (old, new) in RENAMED {
            assert_eq!(Recipe::named(old).unwrap(), Recipe::named(new).unwrap());
            assert!(recipe_names().any(|name| name == *new) && recipe_names().all(|name| name != *old), "{old}");
        }
    }

    #[test]
    fn unknown_names_suggest_the_nearest() {
        let told = Recipe::named("resnet_cifr").unwrap_err().to_string();
        assert!(told.contains("did you mean resnet_cifar?"), "{told}");
    }
}
