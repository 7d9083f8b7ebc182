//! The course of a metric: what was gained, what was lost again, and what its own noise allows to say.

use crate::series::{median, noise, smooth, trend};
use crate::view::Metric;

/// The course of a metric over its evaluations, on a scale where higher is better (`upward`).
///
/// `best` and `last` are medians of three neighbours: one lucky or unlucky evaluation is neither.
#[derive(Clone, Debug)]
pub struct Course {
    /// Steps of the evaluations that gave a finite value.
    pub steps: Vec<u64>,
    /// Those values, upward.
    pub values: Vec<f64>,
    /// The first of them.
    pub first: f64,
    /// The best level.
    pub best: f64,
    /// Index of the best level.
    pub best_at: usize,
    /// The level at the end.
    pub last: f64,
    /// Deviation of one evaluation by its own noise.
    pub noise: f64,
    /// Evaluations at the end that are all worse than half way from best to last.
    pub tail: usize,
}

impl Course {
    /// The course of a metric; `None` under five finite values, which tell no course.
    pub fn of(metric: &Metric<'_>) -> Option<Self> {
        let finite = metric.column.iter().filter(|(_, v)| v.is_finite());
        let (steps, values): (Vec<u64>, Vec<f64>) = finite.map(|(s, v)| (s, metric.goal.upward(v))).unzip();
        Self::new(steps, values)
    }

    /// The course of finite values, higher is better; `None` under five.
    pub fn new(steps: Vec<u64>, values: Vec<f64>) -> Option<Self> {
        if values.len() < 5 || steps.len() != values.len() {
            return None;
        }
        let level = smooth(&values, 3);
        // The earliest of the best.
        let best_at = (0..level.len()).reduce(|best, at| if level[at] > level[best] { at } else { best })?;
        let (first, best) = (*values.first()?, level[best_at]);
        let last = median(values[values.len() - 3..].iter().copied())?;
        // The first tenth is where a metric moves in earnest.
        let noise = noise(&values[values.len() / 10..]).unwrap_or(0.0);
        let half = best - (best - last) / 2.0;
        let tail = values.iter().rev().take_while(|v| **v <= half).count();
        Some(Self { steps, values, first, best, best_at, last, noise, tail })
    }

    /// What was gained over the first evaluation; not negative.
    pub fn gained(&self) -> f64 {
        (self.best - self.first).max(0.0)
    }

    /// What was lost of the best; not negative.
    pub fn lost(&self) -> f64 {
        (self.best - self.last).max(0.0)
    }

    /// Loss relative to the size of the best level: for losses, which have no natural range.
    pub fn lost_relative(&self) -> f64 {
        if self.best == 0.0 { 0.0 } else { self.lost() / self.best.abs() }
    }

    /// Whether what was lost is more than noise: each evaluation of the tail says it by itself twice over, and together they
    /// say it `times` over.
    pub fn lost_beyond_noise(&self, times: f64) -> bool {
        let together = (self.tail.min(9) as f64).sqrt();
        self.lost() > 2.0 * self.noise && self.lost() * together > times * self.noise
    }

    /// The step from which on the loss is seen: the first evaluation of the tail.
    pub fn lost_from(&self) -> u64 {
        self.steps[(self.steps.len() - self.tail.clamp(1, self.steps.len())).min(self.steps.len() - 1)]
    }

    /// The last step.
    pub fn end(&self) -> u64 {
        self.steps[self.steps.len() - 1]
    }

    /// The trend of the last `count` evaluations, from -1 (each worse than all before) to 1.
    pub fn trend_of_last(&self, count: usize) -> f64 {
        trend(&self.values[self.values.len().saturating_sub(count)..])
    }

    /// Evaluations after the best.
    pub fn since_best(&self) -> usize {
        self.values.len() - 1 - self.best_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(values: &[f64]) -> Course {
        Course::new((0..values.len() as u64).collect(), values.to_vec()).expect("five values")
    }

    #[test]
    fn one_lucky_evaluation_is_not_the_best_level() {
        let course = course(&[0.1, 0.2, 0.9, 0.3, 0.4, 0.4, 0.4]);
        assert_eq!((course.best, course.last), (0.4, 0.4));
        assert_eq!(course.lost(), 0.0);
    }

    #[test]
    fn a_lasting_fall_is_measured_and_dated() {
        let course = course(&[0.1, 0.3, 0.5, 0.7, 0.7, 0.7, 0.2, 0.2, 0.2, 0.2]);
        assert_eq!((course.tail, course.lost_from()), (4, 6));
        assert!((course.lost() - 0.5).abs() < 1e-12);
        assert!(course.lost_beyond_noise(5.0));
    }

    #[test]
    fn few_values_have_no_course() {
        assert!(Course::new(vec![1, 2], vec![1.0, 2.0]).is_none());
    }
}
