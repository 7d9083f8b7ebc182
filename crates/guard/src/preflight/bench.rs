//! What checks work with: the settings in force, the network on the bench once it is there, and the clock.

use std::time::{Duration, Instant};

use trimtab_doctor::series::median;
use trimtab_signals::{Signal, names};
use trimtab_train::settings::Resolved;
use trimtab_train::{Examination, Probe, TrainError};

use super::declared::{Declared, Keys};
use super::{Options, Trouble};
use crate::Guarded;

/// See the module.
pub(super) struct Bench<'a> {
    pub(super) guarded: &'a Guarded,
    pub(super) options: &'a Options,
    pub(super) keys: Keys<'a>,
    probe: Option<Box<dyn Probe + 'a>>,
    started: Instant,
    /// Seconds of every step done so far.
    steps: Vec<f64>,
    /// What the first batch showed, where it was looked at.
    examined: Option<Examination>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(guarded: &'a Guarded, options: &'a Options) -> Self {
        let keys = Keys::new(&guarded.loaded.resolved);
        Self {
            guarded,
            options,
            keys,
            probe: None,
            started: Instant::now(),
            steps: Vec::new(),
            examined: None,
        }
    }

    pub(super) fn resolved(&self) -> &'a Resolved {
        &self.guarded.loaded.resolved
    }

    /// Sets up network and data.
    pub(super) fn build(&mut self) -> Result<(), TrainError> {
        self.probe = Some(self.guarded.loaded.recipe.probe(&self.options.device)?);
        Ok(())
    }

    /// The network, unless it could not be set up.
    pub(super) fn probe(&mut self) -> Result<&mut (dyn Probe + 'a), Trouble> {
        match &mut self.probe {
            Some(probe) => Ok(probe.as_mut()),
            None => Err(Trouble::Skip("training could not start, see above".to_owned())),
        }
    }

    /// The stages, and what the settings say of each.
    pub(super) fn declared(&mut self) -> Result<Vec<Declared>, Trouble> {
        let keys = self.keys.clone();
        Ok(self.probe()?.stages().iter().map(|plan| Declared::of(&keys, plan)).collect())
    }

    /// The first stage, of which experiments are.
    pub(super) fn first_stage(&mut self) -> Result<Declared, Trouble> {
        let all = self.declared()?;
        all.into_iter().next().ok_or_else(|| Trouble::Skip("the recipe has no stage".to_owned()))
    }

    /// Begins the first stage anew.
    pub(super) fn enter(&mut self) -> Result<(), Trouble> {
        Ok(self.probe()?.enter(0)?)
    }

    /// One timed optimizer step.
    pub(super) fn step(&mut self, batch: u64, at: u64, rate: Option<f64>) -> Result<Moment, Trouble> {
        let begun = Instant::now();
        let signals = self.probe()?.step(batch, at, rate)?;
        self.steps.push(begun.elapsed().as_secs_f64());
        Ok(Moment(signals))
    }

    /// Seconds of a step in the middle; one is done to know them where none was.
    pub(super) fn step_seconds(&mut self) -> Result<f64, Trouble> {
        if self.steps.is_empty() {
            self.enter()?;
            self.step(0, 0, None)?;
        }
        // The first one warms caches and plans kernels.
        let rest = if self.steps.len() > 1 { &self.steps[1..] } else { &self.steps[..] };
        Ok(median(rest.iter().copied()).unwrap_or(0.0))
    }

    /// Whether so many more steps fit into the time; otherwise why not.
    pub(super) fn afford(&mut self, steps: f64) -> Result<(), Trouble> {
        let each = self.step_seconds()?;
        let left = self.left();
        if each * steps <= left {
            return Ok(());
        }
        Err(Trouble::Skip(format!(
            "no time: about {} of {} steps at {}, {} left of {} (--seconds)",
            duration(each * steps),
            steps.round(),
            duration(each),
            duration(left.max(0.0)),
            duration(self.options.seconds)
        )))
    }

    /// Seconds left.
    pub(super) fn left(&self) -> f64 {
        self.options.seconds - self.started.elapsed().as_secs_f64()
    }

    /// What the first batch shows to the initial weights, at the step from which on all that rises has risen.
    pub(super) fn examined(&mut self) -> Result<Examination, Trouble> {
        if let Some(known) = &self.examined {
            return Ok(known.clone());
        }
        let at = self.first_stage()?.settled();
        // Forward and backward once for all, and once for each of a few terms.
        self.afford(6.0)?;
        self.enter()?;
        let examined = self.probe()?.examine(at, at)?;
        self.examined = Some(examined.clone());
        Ok(examined)
    }
}

/// The signals of a step.
pub(super) struct Moment(Vec<(String, f64)>);

impl Moment {
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// The loss on labels, whose weights do not move with the step; the whole loss where it is not apart.
    pub(super) fn loss(&self) -> f64 {
        let supervised = self.get(names::LOSS_SUPERVISED.name);
        supervised.or_else(|| self.get(names::LOSS_TOTAL.name)).unwrap_or(f64::NAN)
    }

    /// A signal of every group.
    pub(super) fn groups<'a>(&'a self, signal: &'a Signal) -> impl Iterator<Item = f64> + 'a {
        self.0.iter().filter(|(name, _)| signal.group_of(name).is_some()).map(|(_, value)| *value)
    }

    pub(super) fn clipped(&self) -> bool {
        self.get(names::GRAD_CLIPPED.name) == Some(1.0)
    }
}

/// For people: `266 ms`, `14 s`, `12 min`, `3.5 h`.
pub(super) fn duration(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    match duration.as_secs_f64() {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_unit() {
        let told = [0.2662, 1.44, 14.2, 700.0, 12_600.0].map(duration);
        assert_eq!(told, ["266 ms", "1.4 s", "14 s", "12 min", "3.5 h"]);
    }
}
