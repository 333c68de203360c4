//! Whether devices compute with this crate's kernels or with Burn's own operations.
//!
//! A choice of the device would be better, but Burn's leaves no room for it: `FlexDevice` is a struct without fields,
//! all flex devices are one, and an operation is given nothing but its tensors and their device. A choice of the thread
//! would not hold, since backward passes and data loaders run on threads of their own. So it is made once for a
//! process, before its first operation, and cannot change under a running network: by [`choose`], else by
//! `CONVZOO_KERNELS` (`on` or `off`), else the kernels are on.

use std::sync::OnceLock;

use crate::KernelError;

/// Whose kernels compute, where this crate has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kernels {
    /// This crate's.
    #[default]
    Convzoo,
    /// Burn's own.
    Burn,
}

impl Kernels {
    /// What `CONVZOO_KERNELS` says: `on`, which is the default, or `off`.
    ///
    /// # Errors
    /// It says neither.
    pub fn from_environment() -> Result<Self, KernelError> {
        Self::parse(&std::env::var("CONVZOO_KERNELS").unwrap_or_default())
    }

    fn parse(word: &str) -> Result<Self, KernelError> {
        match word {
            "" | "on" => Ok(Self::Convzoo),
            "off" => Ok(Self::Burn),
            other => Err(KernelError::Switch(other.to_owned())),
        }
    }
}

static CHOICE: OnceLock<Kernels> = OnceLock::new();

/// Chooses for this process, whatever the environment says; to be called before the first operation.
///
/// # Errors
/// The other has been chosen already, or operations have run with it.
pub fn choose(kernels: Kernels) -> Result<(), KernelError> {
    match *CHOICE.get_or_init(|| kernels) {
        chosen if chosen == kernels => Ok(()),
        _ => Err(KernelError::Chosen),
    }
}

/// What was chosen; the first to ask without a choice settles it by the environment. A program that wants to complain of a
/// wrong `CONVZOO_KERNELS` asks [`Kernels::from_environment`] before: here it counts as `on`.
pub fn chosen() -> Kernels {
    *CHOICE.get_or_init(|| Kernels::from_environment().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_on_or_off() {
        assert_eq!(
            ["", "on", "off"].map(Kernels::parse),
            [Ok(Kernels::Convzoo), Ok(Kernels::Convzoo), Ok(Kernels::Burn)]
        );
        assert_eq!(Kernels::parse("perhaps"), Err(KernelError::Switch("perhaps".to_owned())));
    }

    #[test]
    fn a_choice_stays_as_it_was_made() {
        let first = chosen();
        let other = if first == Kernels::Burn { Kernels::Convzoo } else { Kernels::Burn };
        assert_eq!(choose(first), Ok(()), "the same choice twice");
        assert_eq!(choose(other), Err(KernelError::Chosen));
        assert_eq!(chosen(), first);
    }
}
