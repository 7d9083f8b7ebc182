//! Class weights by the effective number of samples, Cui et al. 2019, <https://arxiv.org/abs/1901.05555>, and when to use
//! them: deferred re-weighting (DRW), Cao et al. 2019, <https://arxiv.org/abs/1906.07413>.

/// `(1 - beta) / (1 - beta^n)` for each class of `n` samples, rescaled to a mean of 1, so that they sum to their number.
///
/// `beta` in 0..=1: 0 gives ones, 1 (the limit) `1/n`. A class without a sample gets 0 and takes no part in the mean: there
/// is nothing to weigh, and its own formula would be a division by zero.
pub fn class_balanced_weights(class_counts: &[u64], beta: f64) -> Vec<f64> {
    let weight = |n: u64| match n {
        0 => 0.0,
        _ if beta >= 1.0 => 1.0 / n as f64,
        // 1 - beta^n without cancellation where beta is close to 1.
        _ => (1.0 - beta) / -(n as f64 * beta.ln()).exp_m1(),
    };
    let weights: Vec<f64> = class_counts.iter().map(|n| weight(*n)).collect();
    let present = class_counts.iter().filter(|n| **n > 0).count() as f64;
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| if sum > 0.0 { w * present / sum } else { *w }).collect()
}

/// Deferred re-weighting: ones until it is `active`, then [`class_balanced_weights`].
pub fn drw_weights(class_counts: &[u64], beta: f64, active: bool) -> Vec<f64> {
    if active { class_balanced_weights(class_counts, beta) } else { vec![1.0; class_counts.len()] }
}
