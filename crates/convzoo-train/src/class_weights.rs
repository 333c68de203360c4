use std::fmt::{self, Formatter};

use convzoo_data::Dataset;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::TrainError;

/// How much an image's loss counts, by its class: the loss of a batch is the mean of its images' weighted by these, as
/// PyTorch's `CrossEntropyLoss(weight=…)` has it.
#[derive(Debug, Clone, PartialEq)]
pub enum ClassWeights {
    /// In inverse proportion to the training images of the class, and 1 where all have as many: images / (classes ×
    /// images of the class). In TOML `"balanced"`.
    Balanced,
    /// One for each class, in the order of the classes. In TOML a list.
    Each(Vec<f64>),
}

/// What a weight may be: what remains of it in 32 bits is above zero and finite.
const BOUNDS: [f64; 2] = [1e-6, 1e6];

impl ClassWeights {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        match self {
            Self::Each(weights) if weights.iter().any(|weight| !(BOUNDS[0]..=BOUNDS[1]).contains(weight)) => {
                Err(TrainError::Recipe {
                    field: "class_weights",
                    value: format!("{weights:?}"),
                    expected: "\"balanced\", or a list of weights from 0.000001 to 1000000",
                })
            }
            _ => Ok(()),
        }
    }

    /// The weights for training on `data`.
    pub(crate) fn of(&self, data: &dyn Dataset) -> Result<Vec<f32>, TrainError> {
        let classes = data.classes().len();
        match self {
            Self::Each(weights) if weights.len() == classes => {
                Ok(weights.iter().map(|&weight| weight as f32).collect())
            }
            Self::Each(weights) => Err(TrainError::ClassWeights { weights: weights.len(), classes }),
            Self::Balanced => {
                let mut images = vec![0usize; classes];
                for index in 0..data.len() {
                    images[data.label(index)?] += 1;
                }
                // A class without images counts for nothing but its share of smoothed labels.
                let present = images.iter().filter(|&&images| images > 0).count();
                let weight = |images: usize| data.len() as f64 / (present * images) as f64;
                Ok(images.into_iter().map(|images| if images > 0 { weight(images) as f32 } else { 1.0 }).collect())
            }
        }
    }
}

impl Serialize for ClassWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Balanced => serializer.serialize_str("balanced"),
            Self::Each(weights) => weights.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Weights;

        impl<'de> Visitor<'de> for Weights {
            type Value = ClassWeights;

            fn expecting(&self, f: &mut Formatter) -> fmt::Result {
                f.write_str("\"balanced\", or a list with a weight for each class")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<ClassWeights, E> {
                match word {
                    "balanced" => Ok(ClassWeights::Balanced),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ClassWeights, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(ClassWeights::Each)
            }
        }

        deserializer.deserialize_any(Weights)
    }
}

#[cfg(test)]
mod tests {
    use convzoo_data::InMemory;

    use super::*;
    use crate::Recipe;

    #[test]
    fn balanced_weights_are_inverse_to_the_images_of_a_class() {
        let classes = ["a", "b", "c", "none"].map(str::to_owned).into();
        let data = InMemory::new((1, 1, 1), vec![0; 8], vec![0, 0, 0, 0, 0, 1, 1, 2], classes).unwrap();
        let weights = ClassWeights::Balanced.of(&data).unwrap();
        assert_eq!(weights, [8.0 / 15.0, 8.0 / 6.0, 8.0 / 3.0, 1.0]);
        let told = ClassWeights::Each(vec![1.0, 2.0]).of(&data).unwrap_err().to_string();
        assert!(told.contains("2 weights") && told.contains("4 classes"), "{told}");
    }

    #[test]
    fn recipes_have_them_as_a_word_or_a_list() {
        for (text, expected) in
            [("\"balanced\"", ClassWeights::Balanced), ("[1, 2.5]", ClassWeights::Each(vec![1.0, 2.5]))]
        {
            let recipe = Recipe::parse(&format!("class_weights = {text}")).unwrap();
            assert_eq!(recipe.class_weights, Some(expected));
            assert_eq!(Recipe::parse(&recipe.table().unwrap().to_string()).unwrap(), recipe, "{text}");
        }
        for (text, part) in [("\"equal\"", "\"balanced\", or a list"), ("[1, \"a\"]", "f64"), ("3", "\"balanced\"")] {
            let told = Recipe::parse(&format!("class_weights = {text}")).unwrap_err();
            assert!(told.contains(part), "{text} told: {told}");
        }
        for text in ["[1, 0]", "[-1]", "[1e300]", "[nan]"] {
            let recipe = Recipe::default().with([("class_weights", text)]).unwrap();
            assert!(recipe.check().unwrap_err().to_string().contains("class_weights must be"), "{text}");
        }
    }
}
