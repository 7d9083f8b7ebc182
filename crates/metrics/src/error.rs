//! What can be wrong with the arrays given to a metric.

/// An input that a metric cannot count. Nothing of the offending call has been counted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
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
    /// A label or prediction outside the classes.
    #[error("{what} {value} at position {index} is none of the {classes} classes 0 to {last}", last = classes - 1)]
    Class {
        /// `label` or `prediction`.
        what: &'static str,
        /// Position of the first such value.
        index: usize,
        /// The value found there.
        value: i64,
        /// Number of classes, at least 1.
        classes: usize,
    },
    /// Too few or too many classes.
    #[error("{found} classes: expected {least} to {most}")]
    Classes {
        /// Number of classes asked for.
        found: usize,
        /// Smallest number accepted.
        least: usize,
        /// Largest number accepted.
        most: usize,
    },
    /// An array that does not fill its volume.
    #[error("{voxels} voxels do not fill a volume of {}x{}x{}", shape[0], shape[1], shape[2])]
    Voxels {
        /// Length of the array.
        voxels: usize,
        /// Depth, height, width.
        shape: [usize; 3],
    },
    /// A volume with more voxels than 32 bits can number.
    #[error("a volume of {}x{}x{} is too large: expected fewer than 2^31 voxels", shape[0], shape[1], shape[2])]
    TooLarge {
        /// Depth, height, width.
        shape: [usize; 3],
    },
    /// A number that is no distance, weight or percentage.
    #[error("{name} is {value}: expected {accepted}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What is accepted.
        accepted: &'static str,
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

/// Checks that `voxels` fill `shape`.
pub(crate) fn check_volume(voxels: usize, shape: [usize; 3]) -> Result<(), Error> {
    // Numbers of components are `u32`. An axis of length 0 must not hide how long the others are.
    let size = shape.into_iter().try_fold(1_usize, |size, axis| size.checked_mul(axis.max(1)));
    if size.is_none_or(|size| size >= 1 << 31) {
        return Err(Error::TooLarge { shape });
    }
    if shape.into_iter().product::<usize>() != voxels {
        return Err(Error::Voxels { voxels, shape });
    }
    Ok(())
}

/// Checks that a number is finite and above 0.
pub(crate) fn check_positive(name: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::Parameter { name, value, accepted: "a finite number above 0" })
}

pub(crate) fn check_spacing(spacing: [f64; 3]) -> Result<(), Error> {
    spacing.into_iter().try_for_each(|value| check_positive("spacing", value))
}
