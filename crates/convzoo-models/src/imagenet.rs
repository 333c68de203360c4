//! ImageNet's 1,000 classes, those of the published weights.

/// A line each, in the order of the logits, as torchvision names them.
const CLASSES: &str = include_str!("../data/imagenet_classes.txt");

/// The names of the classes: name n belongs to logit n.
///
/// ```
/// assert_eq!(convzoo_models::imagenet::class_names()[281], "tabby");
/// ```
pub fn class_names() -> Vec<String> {
    CLASSES.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_a_thousand_names_and_the_known_ones_in_their_places() {
        let names = class_names();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| !name.is_empty() && name.trim() == name));
        for (class, name) in [(0, "tench"), (134, "crane bird"), (281, "tabby"), (517, "crane"), (999, "toilet tissue")]
        {
            assert_eq!(names[class], name);
        }
    }
}
