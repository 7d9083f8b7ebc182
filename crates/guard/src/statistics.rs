//! Means, deviations and differences of a few runs, and how little a few are worth.

use std::f64::consts::FRAC_2_PI;

use serde::Serialize;

/// A difference counts as clear beyond so many of its standard errors.
pub const CLEAR: f64 = 2.0;

/// Mean and deviation of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moments {
    /// Mean.
    pub mean: f64,
    /// Sample deviation (by n - 1); none of a single value.
    pub deviation: Option<f64>,
    /// How many values.
    pub n: usize,
}

impl Moments {
    /// Deviation of the mean; none of a single value.
    pub fn standard_error(&self) -> Option<f64> {
        self.deviation.map(|deviation| deviation / (self.n as f64).sqrt())
    }

    /// Whether the mean is farther from 0 than [`CLEAR`] standard errors.
    pub fn is_clear(&self) -> bool {
        self.standard_error().is_some_and(|error| self.mean.abs() > CLEAR * error)
    }
}

/// Mean and sample deviation of the finite values; none without any.
pub fn moments(values: impl IntoIterator<Item = f64>) -> Option<Moments> {
    let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let deviation = (n > 1).then(|| (squares / (n as f64 - 1.0)).sqrt());
    (n > 0).then_some(Moments { mean, deviation, n })
}

/// Probability that the mean of `n` normal values around 0 is farther from it than [`CLEAR`] of its standard errors, estimated from
/// the same values: the two tails of Student's t with n - 1 degrees of freedom. None below two values.
///
/// Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
pub fn chance_of_clear(n: usize) -> Option<f64> {
    let freedom = n.checked_sub(1).filter(|f| *f > 0)?;
    let angle = (CLEAR / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // Both series have half as many terms as there are degrees of freedom, rounded down.
    let (mut sum, mut term) = (0.0, 1.0);
    for j in 1..=freedom / 2 {
        sum += term;
        let j = 2.0 * j as f64;
        term *= cosine * cosine * if odd { j / (j + 1.0) } else { (j - 1.0) / j };
    }
    let within = if odd { FRAC_2_PI * (angle + sine * cosine * sum) } else { sine * sum };
    Some(1.0 - within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn mean_and_deviation_are_those_by_hand_and_pass_over_what_is_no_number() {
        // Squares of -2, 0 and 2 over 3 - 1.
        let m = moments([1.0, f64::NAN, 3.0, f64::INFINITY, 5.0]).unwrap();
        assert!(m.n == 3 && near(m.mean, 3.0) && near(m.deviation.unwrap(), 2.0), "{m:?}");
        assert!(near(m.standard_error().unwrap(), 2.0 / 3f64.sqrt()));
        assert_eq!(moments([7.0]), Some(Moments { mean: 7.0, deviation: None, n: 1 }));
        assert_eq!(moments([f64::NAN]), None);
    }

    #[test]
    fn a_difference_is_clear_beyond_two_standard_errors_and_never_for_one_run() {
        // Deviation 1, error 1 / sqrt(4) = 0.5: the bound is 1.
        let around = |mean: f64| Moments { mean, deviation: Some(1.0), n: 4 };
        assert!(around(1.01).is_clear() && around(-1.01).is_clear());
        assert!(!around(0.99).is_clear() && !around(-0.99).is_clear());
        assert!(!moments([100.0]).unwrap().is_clear());
        assert!(!moments([0.0, 0.0]).unwrap().is_clear());
        assert!(moments([0.5, 0.5]).unwrap().is_clear());
    }

    #[test]
    fn the_chance_of_a_clear_difference_is_that_of_student_s_t() {
        // The density integrated by Simpson's rule, with another program.
        for (n, wanted) in
            [(2, 0.2951672), (3, 0.1835034), (4, 0.1393260), (5, 0.1161165), (6, 0.1019395), (11, 0.07338803)]
        {
            let found = chance_of_clear(n).unwrap();
            assert!((found - wanted).abs() < 1e-6, "{n}: {found}");
        }
        assert_eq!((chance_of_clear(0), chance_of_clear(1)), (None, None));
    }
}
