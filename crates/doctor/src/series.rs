//! Robust statistics of short, noisy, gappy series. None assumes a scale.

/// The median of finite values; `None` without any.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    quantile(values, 0.5)
}

/// A quantile of finite values by linear interpolation; `None` without any.
pub fn quantile(values: impl IntoIterator<Item = f64>, q: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    if sorted.is_empty() {
        return None;
    }
    sorted.sort_by(f64::total_cmp);
    let at = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let next = sorted[(low + 1).min(sorted.len() - 1)];
    // The difference of two finite numbers may not be finite.
    Some(if part == 0.0 { sorted[low] } else { sorted[low] * (1.0 - part) + next * part })
}

/// The median of each value with its `width / 2` neighbours on either side; at the ends of those there are. What is not finite
/// is passed over, and stays where all neighbours are not.
pub fn smooth(values: &[f64], width: usize) -> Vec<f64> {
    let half = width / 2;
    (0..values.len())
        .map(|at| {
            let window = &values[at.saturating_sub(half)..(at + half + 1).min(values.len())];
            median(window.iter().copied()).unwrap_or(values[at])
        })
        .collect()
}

/// The typical noise of one measurement, as a standard deviation of normal noise: from the median absolute second difference of
/// neighbours, which a trend does not enter. `None` under four finite values.
pub fn noise(values: &[f64]) -> Option<f64> {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if finite.len() < 4 {
        return None;
    }
    // The variance of x0 - 2 x1 + x2 is 6 that of x; the median absolute value of a normal is .6745 of its deviation.
    let second = finite.windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs());
    median(second).map(|m| m / 0.6745 / 6f64.sqrt())
}

/// The unit in which values are printed: 0.001 where all have three decimals or fewer; 0 where they have more than eight.
pub fn resolution(values: &[f64]) -> f64 {
    let finite = || values.iter().filter(|v| v.is_finite());
    (0..9)
        .map(|digits| 10f64.powi(digits))
        .find(|scale| {
            finite().all(|v| ((v * scale).round() - v * scale).abs() < 1e-6 * scale.max(1.0).sqrt())
        })
        .map_or(0.0, f64::recip)
}

/// Trend in [-1, 1]: the share of ordered pairs that rise minus that which fall (Kendall's tau-a). Long series are
/// thinned to at most 200 values.
pub fn trend(values: &[f64]) -> f64 {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let stride = finite.len().div_ceil(200).max(1);
    let few: Vec<f64> = finite.into_iter().step_by(stride).collect();
    let (mut sum, mut pairs) = (0i64, 0i64);
    for (at, a) in few.iter().enumerate() {
        for b in &few[at + 1..] {
            sum += i64::from(b > a) - i64::from(b < a);
            pairs += 1;
        }
    }
    if pairs == 0 { 0.0 } else { sum as f64 / pairs as f64 }
}

/// Where the stretch begins over which something holds to the end; the length where it does not hold there.
pub fn tail(values: &[f64], holds: impl Fn(f64) -> bool) -> usize {
    values.iter().rposition(|&v| !holds(v)).map_or(0, |at| at + 1)
}

/// Whether a series comes down by more than its noise explains: from its first third to its last, or from its
/// first three values to its last third. `None` under six finite values.
pub fn falls(values: &[f64]) -> Option<bool> {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if finite.len() < 6 {
        return None;
    }
    // The standard error of a median of n values is about 1.25 deviations over sqrt(n); four of them are not
    // chance.
    let error = |n: usize| 4.0 * 1.25 * noise(&finite).unwrap_or(0.0) / (n as f64).sqrt();
    let third = finite.len() / 3;
    let level = |part: &[f64]| median(part.iter().copied()).unwrap_or(f64::NAN);
    let last = level(&finite[finite.len() - third..]);
    let by = |first: &[f64]| level(first) - last > error(first.len().min(third));
    Some(by(&finite[..third]) || by(&finite[..3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_pass_over_what_is_not_finite() {
        assert_eq!(median([3.0, f64::NAN, 1.0, f64::INFINITY]), Some(2.0));
        assert_eq!(median([f64::NAN]), None);
        assert_eq!(smooth(&[1.0, 9.0, 1.0, f64::NAN], 3), [5.0, 1.0, 5.0, 1.0]);
    }

    #[test]
    fn noise_does_not_see_a_trend() {
        let line: Vec<f64> = (0..50).map(f64::from).collect();
        assert_eq!(noise(&line), Some(0.0));
        let zigzag: Vec<f64> = (0..50).map(|i| f64::from(i) + if i % 2 == 0 { 0.1 } else { -0.1 }).collect();
        assert!(noise(&zigzag).is_some_and(|n| n > 0.1 && n < 0.4));
        assert_eq!(noise(&[1.0, 2.0, 3.0]), None);
    }

    #[test]
    fn a_trend_is_between_minus_one_and_one() {
        assert_eq!(trend(&[1.0, 2.0, 3.0]), 1.0);
        assert_eq!(trend(&[3.0, 2.0, 1.0, f64::NAN]), -1.0);
        assert_eq!(trend(&[1.0]), 0.0);
    }

    #[test]
    fn a_fall_is_more_than_noise() {
        let zigzag = |at: usize| [0.3, -0.9, 0.7, -0.1, 1.0, -0.6, 0.1, -0.5][at % 8];
        let flat: Vec<f64> = (0..40).map(|at| 1.0 + 0.1 * zigzag(at)).collect();
        assert_eq!(falls(&flat), Some(false));
        let falling: Vec<f64> = flat.iter().enumerate().map(|(at, v)| v - 0.02 * at as f64).collect();
        assert_eq!(falls(&falling), Some(true));
        let high = |at: usize| if at < 4 { 5.0 } else { 0.0 };
        let early: Vec<f64> = flat.iter().enumerate().map(|(at, v)| v + high(at)).collect();
        assert_eq!(falls(&early), Some(true));
        assert_eq!(falls(&[3.0, 2.0, 1.0]), None);
        assert_eq!(falls(&[f64::NAN; 9]), None);
    }

    #[test]
    fn a_tail_holds_to_the_end() {
        assert_eq!(tail(&[1.0, 5.0, f64::NAN, 5.0, 6.0], |v| v > 4.0), 3);
        assert_eq!(tail(&[5.0, 1.0], |v| v > 4.0), 2);
        assert_eq!(tail(&[], |v| v > 4.0), 0);
    }
}
