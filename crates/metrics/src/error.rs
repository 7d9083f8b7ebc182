//! What can be wrong with the arrays given to a metric.

/// An input that a metric cannot count. Nothing of the offending call has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Probabilities and labels do not pair up.
    #[error("{probabilities} probabilities do not pair with {labels} labels")]
    Length {
        /// Number of probabilities given.
        probabilities: usize,
        /// Number of labels given.
        labels: usize,
    },
    /// A label of a third class reached a binary metric.
    #[error(
        "label {value} at position {index} is not binary: expected 1 (positive), 0 (negative) or a \
         negative number (ignored)"
    )]
    Label {
        /// Position of the first such label.
        index: usize,
        /// The label found there.
        value: i8,
    },
}

/// Checks that the slices pair up and that no label is above 1.
pub(crate) fn check(probabilities: &[f32], labels: &[i8]) -> Result<(), Error> {
    if probabilities.len() != labels.len() {
        return Err(Error::Length { probabilities: probabilities.len(), labels: labels.len() });
    }
    // A maximum first: it vectorises, and the position matters only when something is wrong.
    if labels.iter().copied().max().unwrap_or(0) > 1
        && let Some(index) = labels.iter().position(|&label| label > 1)
    {
        return Err(Error::Label { index, value: labels[index] });
    }
    Ok(())
}
