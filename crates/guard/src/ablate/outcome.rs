//! What the runs of an ablation showed: measured, compared, and written.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use trimtab_data::DataError;
use trimtab_data::atomic::write_atomic;
use trimtab_signals::{Status, Summary};

use super::Plan;
use crate::statistics::{Moments, chance_of_clear, moments};

/// File with the outcome, for programs.
pub const RESULT: &str = "ablation.json";
/// The same for people.
pub const MARKDOWN: &str = "ablation.md";

/// How a run of an ablation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Not trained yet, or not to its end.
    Open,
    /// All steps done, or ended early for lack of progress.
    Finished,
    /// Ended by an expectation or by the guard: it counts with what it has.
    Stopped,
    /// Ended by an error.
    Failed,
}

/// What a run measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Measured {
    /// The metric at the best weights.
    pub best: Option<f64>,
    /// Step of the best weights.
    pub best_step: Option<u64>,
    /// The metric at the end.
    pub last: Option<f64>,
    /// What a predictor that has learned nothing gets.
    pub floor: Option<f64>,
    /// Steps done.
    pub steps: u64,
    /// Seconds it took, pauses apart.
    pub seconds: Option<f64>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// Name of its variant.
    pub variant: String,
    /// Its seed.
    pub seed: u64,
    /// Its directory, within that of the ablation.
    pub directory: String,
    /// How it ended.
    pub ending: Ending,
    /// Why, where that is not plain.
    pub reason: Option<String>,
    /// What it measured; none for runs that are open or failed.
    pub measured: Option<Measured>,
}

impl Attempt {
    /// Takes over the summary of a run that has ended; one that was interrupted stays open.
    pub fn ended(&mut self, summary: &Summary, metric: &str) {
        self.ending = match summary.status {
            Status::Finished => Ending::Finished,
            Status::Stopped => Ending::Stopped,
            Status::Failed => Ending::Failed,
            _ => Ending::Open,
        };
        self.reason = summary.reason.clone();
        let scores = summary.metrics.get(metric).copied().unwrap_or_default();
        self.measured = matches!(self.ending, Ending::Finished | Ending::Stopped).then_some(Measured {
            best: scores.best,
            best_step: scores.best_step,
            last: scores.last,
            floor: scores.floor,
            steps: summary.steps,
            seconds: summary.wall_seconds,
        });
    }

    /// Notes that an error ended it.
    pub fn failed(&mut self, reason: String) {
        (self.ending, self.reason, self.measured) = (Ending::Failed, Some(reason), None);
    }
}

/// What a variant showed, over its runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub variant: String,
    /// What it sets beyond the baseline, as `key=value`.
    pub set: Vec<String>,
    /// The metric at the best weights.
    pub best: Option<Moments>,
    /// Difference of that to the baseline's run of the same seed; none for the baseline.
    pub difference: Option<Moments>,
    /// Deviation of the mean of those differences.
    pub standard_error: Option<f64>,
    /// Whether the difference is larger than twice that.
    pub clear: bool,
    /// The metric at the end.
    pub last: Option<Moments>,
    /// Steps done.
    pub steps: Option<Moments>,
    /// Seconds a run.
    pub seconds: Option<Moments>,
    /// Seconds over those of the baseline's runs of the same seeds.
    pub cost: Option<f64>,
    /// Runs that finished.
    pub finished: usize,
    /// Runs that were stopped; they count too.
    pub stopped: usize,
    /// Runs that failed; they do not.
    pub failed: usize,
    /// Runs that are open.
    pub open: usize,
}

/// An ablation as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ablation {
    /// The recipe's file.
    pub recipe: String,
    /// The signal variants are compared by; higher is better.
    pub metric: String,
    /// What a predictor that has learned nothing gets, mean over the runs.
    pub floor: Option<f64>,
    /// What the baseline sets beyond the recipe, as `key=value`.
    pub base: Vec<String>,
    /// Seeds of each variant.
    pub seeds: Vec<u64>,
    /// Whether every run has ended.
    pub complete: bool,
    /// The baseline first.
    pub variants: Vec<Outcome>,
    /// Every run, in the order of the plan.
    pub runs: Vec<Attempt>,
}

impl Plan {
    /// The runs before any of them is trained.
    pub fn attempts(&self) -> Vec<Attempt> {
        let of = |run: &super::Run| Attempt {
            variant: self.variants[run.variant].name.clone(),
            seed: run.seed,
            directory: run.directory.clone(),
            ending: Ending::Open,
            reason: None,
            measured: None,
        };
        self.runs.iter().map(of).collect()
    }

    /// What the runs show so far; `attempts` as [`Self::attempts`] gave them, with what became of them.
    pub fn outcome(&self, attempts: &[Attempt]) -> Ablation {
        let of_variant = |index: usize| {
            let name = &self.variants[index].name;
            attempts.iter().filter(|a| a.variant == *name).collect::<Vec<_>>()
        };
        let baseline = of_variant(0);
        let variants = self.variants.iter().enumerate().map(|(index, variant)| {
            let set = variant.set.iter().map(|s| s.text.clone()).collect();
            let pair = (index > 0).then_some(baseline.as_slice());
            outcome(&variant.name, set, &of_variant(index), pair)
        });
        Ablation {
            recipe: self.recipe.display().to_string(),
            metric: self.metric.clone(),
            floor: moments(attempts.iter().filter_map(|a| a.measured?.floor)).map(|m| m.mean),
            base: self.base.clone(),
            seeds: self.seeds.clone(),
            complete: attempts.iter().all(|a| a.ending != Ending::Open),
            variants: variants.collect(),
            runs: attempts.to_vec(),
        }
    }
}

/// What the runs of one variant show; `baseline` are those it is compared with.
fn outcome(name: &str, set: Vec<String>, runs: &[&Attempt], baseline: Option<&[&Attempt]>) -> Outcome {
    let over = |part: fn(&Measured) -> Option<f64>| {
        moments(runs.iter().filter_map(|run| part(run.measured.as_ref()?)))
    };
    // Its value and the baseline's, of every seed that has both.
    let pairs = |part: fn(&Measured) -> Option<f64>| -> Vec<(f64, f64)> {
        let of = |run: &Attempt| part(run.measured.as_ref()?).filter(|v| v.is_finite());
        let both = runs.iter().filter_map(|run| {
            let partner = baseline?.iter().find(|other| other.seed == run.seed)?;
            Some((of(run)?, of(partner)?))
        });
        both.collect()
    };
    let difference = moments(pairs(|m| m.best).into_iter().map(|(own, base)| own - base));
    let times = pairs(|m| m.seconds);
    let (own, base) = times.iter().fold((0.0, 0.0), |(a, b), (own, base)| (a + own, b + base));
    let cost = if baseline.is_none() { over(|m| m.seconds).map(|_| 1.0) } else { None };
    let count = |ending: Ending| runs.iter().filter(|run| run.ending == ending).count();
    Outcome {
        variant: name.to_owned(),
        set,
        best: over(|m| m.best),
        difference,
        standard_error: difference.and_then(|d| d.standard_error()),
        clear: difference.is_some_and(|d| d.is_clear()),
        last: over(|m| m.last),
        steps: over(|m| Some(m.steps as f64)),
        seconds: over(|m| m.seconds),
        cost: cost.or_else(|| (base > 0.0).then(|| own / base)),
        finished: count(Ending::Finished),
        stopped: count(Ending::Stopped),
        failed: count(Ending::Failed),
        open: count(Ending::Open),
    }
}

/// `0.6615 ± 0.0120 (3)`.
fn spread(value: Option<Moments>, sign: bool) -> String {
    let Some(Moments { mean, deviation, n }) = value else { return "–".to_owned() };
    let mean = if sign { format!("{mean:+.4}") } else { format!("{mean:.4}") };
    deviation.map_or_else(|| format!("{mean} ({n})"), |deviation| format!("{mean} ± {deviation:.4} ({n})"))
}

fn plain(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// `a, b and c`.
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

impl Ablation {
    /// Header of the table.
    pub fn header(&self) -> Vec<String> {
        let metric = &self.metric;
        let first = ["variant".to_owned(), format!("{metric} at best"), "to baseline".to_owned()];
        first
            .into_iter()
            .chain(["at the end", "steps", "seconds", "cost", "runs"].map(str::to_owned))
            .collect()
    }

    /// Its rows: one a variant.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let row = |outcome: &Outcome| {
            let mark = if outcome.clear { " *" } else { "" };
            let mut runs = (outcome.finished + outcome.stopped).to_string();
            for (number, word) in
                [(outcome.stopped, "stopped"), (outcome.failed, "failed"), (outcome.open, "open")]
            {
                if number > 0 {
                    let _ = write!(runs, ", {number} {word}");
                }
            }
            vec![
                outcome.variant.clone(),
                spread(outcome.best, false),
                format!("{}{mark}", spread(outcome.difference, true)),
                spread(outcome.last, false),
                plain(outcome.steps.map(|m| m.mean), 0),
                plain(outcome.seconds.map(|m| m.mean), 1),
                outcome.cost.map_or_else(|| "–".to_owned(), |cost| format!("{cost:.2}x")),
                runs,
            ]
        };
        self.variants.iter().map(row).collect()
    }

    /// What must be known to read the table, a sentence or two each.
    pub fn notes(&self) -> Vec<String> {
        let floor = self.floor.map(|f| format!(", floor {f:.4}")).unwrap_or_default();
        let mut notes = vec![format!(
            "mean ± deviation (runs){floor}; differences are between runs of the same seed; the best weights are chosen on the validation data they are measured on"
        )];
        let compared: Vec<&Outcome> = self.variants.iter().filter(|o| o.standard_error.is_some()).collect();
        let least = compared.iter().filter_map(|o| o.difference).map(|d| d.n).min();
        match least.and_then(|n| Some((n, chance_of_clear(n)?))) {
            None => notes.push("one run each can't tell a difference from chance: use more seeds".to_owned()),
            Some((n, chance)) => {
                let clear: Vec<&str> =
                    compared.iter().filter(|o| o.clear).map(|o| o.variant.as_str()).collect();
                let found = if clear.is_empty() {
                    "no difference is larger than twice its standard error".to_owned()
                } else {
                    format!("* larger than twice its standard error: {}", list(&clear))
                };
                let weak = if n < 10 { "weak evidence" } else { "some evidence" };
                notes.push(format!(
                    "{found}; with {n} seeds that is {weak}: of changes that do nothing, {:.0} % exceed it by chance",
                    100.0 * chance
                ));
            }
        }
        for run in &self.runs {
            let word = match run.ending {
                Ending::Stopped => "stopped, and counts with what it has",
                Ending::Failed => "failed, and does not count",
                Ending::Open | Ending::Finished => continue,
            };
            let reason = run.reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default();
            notes.push(format!("{}, seed {}: {word}{reason}", run.variant, run.seed));
        }
        let open = self.runs.iter().filter(|run| run.ending == Ending::Open).count();
        if open > 0 {
            notes.push(format!("{open} of {} runs are open; the same command goes on", self.runs.len()));
        }
        notes
    }

    /// The table with its notes, what each variant sets and every run, as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# Ablation of {}\n\n", self.recipe);
        markdown_table(&mut out, &self.header(), self.rows());
        for note in self.notes() {
            // An error may have several lines.
            let _ = write!(out, "\n- {}", note.replace('\n', "\n  "));
        }
        out.push_str("\n\n## Variants\n\n");
        let code = |set: &[String]| match set {
            [] => "the recipe as it stands".to_owned(),
            set => set.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", "),
        };
        let rows = self.variants.iter().enumerate().map(|(i, outcome)| {
            vec![outcome.variant.clone(), code(if i == 0 { &self.base } else { &outcome.set })]
        });
        markdown_table(&mut out, &["variant".to_owned(), "sets".to_owned()], rows);
        out.push_str("\n## Runs\n\n");
        let header = ["run", &self.metric, "at step", "at the end", "steps", "seconds", "ending"];
        let rows = self.runs.iter().map(|run| {
            let m = run.measured.unwrap_or_default();
            let steps = run.measured.map(|m| m.steps as f64);
            let ending = format!("{:?}", run.ending).to_lowercase();
            vec![
                run.directory.clone(),
                plain(m.best, 4),
                plain(m.best_step.map(|s| s as f64), 0),
                plain(m.last, 4),
                plain(steps, 0),
                plain(m.seconds, 1),
                ending,
            ]
        });
        markdown_table(&mut out, &header.map(str::to_owned), rows);
        out
    }

    /// Writes [`RESULT`] and [`MARKDOWN`] into a folder, each whole or not at all.
    ///
    /// # Errors
    /// The folder is not there, or the disk refuses.
    pub fn write(&self, folder: &Path) -> Result<(), DataError> {
        write_atomic(&folder.join(RESULT), |w| {
            serde_json::to_writer_pretty(&mut *w, self)?;
            w.write_all(b"\n")
        })?;
        write_atomic(&folder.join(MARKDOWN), |w| w.write_all(self.to_markdown().as_bytes()))
    }
}

/// A table; all columns but the first are right-aligned.
fn markdown_table(out: &mut String, header: &[String], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|").replace('\n', " ")).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    };
    line(header);
    let rule: Vec<String> =
        (0..header.len()).map(|i| if i == 0 { "---" } else { "---:" }.to_owned()).collect();
    line(&rule);
    rows.into_iter().for_each(|row| line(&row));
}

#[cfg(test)]
mod tests {
    use super::*;
    use trimtab_signals::MetricSummary;

    fn summary(status: Status, best: f64, seconds: f64) -> Summary {
        let scores =
            MetricSummary { best: Some(best), best_step: Some(8), last: Some(best - 0.1), floor: Some(0.5) };
        Summary {
            status,
            reason: (status == Status::Stopped).then(|| "val/auc > 0.9 was not met".to_owned()),
            steps: 10,
            wall_seconds: Some(seconds),
            steps_per_second: Some(1.0),
            metrics: [("val/auc".to_owned(), scores)].into_iter().collect(),
        }
    }

    /// A plan without runs to train: what is shown depends on the attempts alone.
    fn plan(names: &[&str], seeds: &[u64]) -> (Plan, Vec<Attempt>) {
        let variants =
            names.iter().map(|name| super::super::Variant { name: (*name).to_owned(), set: vec![] });
        let plan = Plan {
            recipe: "r.toml".into(),
            metric: "val/auc".to_owned(),
            seeds: seeds.to_vec(),
            base: vec!["loss.scale=20".to_owned()],
            variants: variants.collect(),
            runs: Vec::new(),
        };
        let attempts = seeds.iter().flat_map(|seed| {
            names.iter().map(move |name| Attempt {
                variant: (*name).to_owned(),
                seed: *seed,
                directory: format!("{name}-seed{seed}"),
                ending: Ending::Open,
                reason: None,
                measured: None,
            })
        });
        let attempts = attempts.collect();
        (plan, attempts)
    }

    fn near(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-9)
    }

    /// Three seeds of a baseline (0.60, 0.70, 0.65), of a change worth 0.10, 0.12 and 0.11 at twice the time, and of one worth
    /// 0.10, -0.10 and 0.
    fn example() -> (Plan, Vec<Attempt>) {
        let (plan, mut attempts) = plan(&["baseline", "good", "noise"], &[1, 2, 3]);
        let best = [[0.60, 0.70, 0.70], [0.70, 0.82, 0.60], [0.65, 0.76, 0.65]];
        let seconds = [10.0, 20.0, 5.0];
        for (i, attempt) in attempts.iter_mut().enumerate() {
            attempt.ended(&summary(Status::Finished, best[i / 3][i % 3], seconds[i % 3]), "val/auc");
        }
        (plan, attempts)
    }

    #[test]
    fn differences_are_paired_by_seed() {
        let (plan, attempts) = example();
        let ablation = plan.outcome(&attempts);
        let [baseline, good, noise] = &ablation.variants[..] else { panic!("three variants") };
        assert!(near(baseline.best.map(|m| m.mean), 0.65) && baseline.difference.is_none());
        assert!(near(baseline.best.unwrap().deviation, 0.05) && near(baseline.cost, 1.0));
        // 0.10, 0.12, 0.11: deviation 0.01. Unpaired the deviations are 0.05 and 0.06, and hide it.
        let difference = good.difference.unwrap();
        assert!(near(Some(difference.mean), 0.11) && near(difference.deviation, 0.01), "{difference:?}");
        assert!(near(good.standard_error, 0.01 / 3f64.sqrt()) && good.clear && near(good.cost, 2.0));
        assert!(near(noise.difference.map(|d| d.mean), 0.0) && !noise.clear && near(noise.cost, 0.5));
        assert!(near(ablation.floor, 0.5) && ablation.complete);
        let notes = ablation.notes().join("\n");
        assert!(notes.contains("larger than twice its standard error: good;"), "{notes}");
        assert!(
            notes.contains("with 3 seeds that is weak evidence: of changes that do nothing, 18 %"),
            "{notes}"
        );
        assert_eq!(ablation.rows()[1][2], "+0.1100 ± 0.0100 (3) *");
    }

    #[test]
    fn what_failed_or_is_open_has_no_part_in_any_mean_and_what_was_stopped_has() {
        let (plan, mut attempts) = example();
        // Seed 1 of the baseline fails; seed 2 of the change is stopped; seed 3 of it was interrupted.
        attempts[0].failed("the disk is full".to_owned());
        attempts[4].ended(&summary(Status::Stopped, 0.82, 4.0), "val/auc");
        attempts[7].ended(&summary(Status::Interrupted, 0.99, 4.0), "val/auc");
        let ablation = plan.outcome(&attempts);
        let [baseline, good, _] = &ablation.variants[..] else { panic!("three variants") };
        assert_eq!((baseline.finished, baseline.failed, baseline.best.unwrap().n), (2, 1, 2));
        assert!(near(baseline.best.map(|m| m.mean), 0.675));
        assert_eq!((good.finished, good.stopped, good.open, good.best.unwrap().n), (1, 1, 1, 2));
        // Only seed 2 is left to compare: 0.82 - 0.70, 4 s over 10 s, and one pair has no deviation.
        let difference = good.difference.unwrap();
        assert!(near(Some(difference.mean), 0.12) && difference.n == 1 && difference.deviation.is_none());
        assert!(!good.clear && near(good.cost, 0.4) && !ablation.complete);
        let rows = ablation.rows();
        assert_eq!((rows[0][7].as_str(), rows[1][7].as_str()), ("2, 1 failed", "2, 1 stopped, 1 open"));
        let notes = ablation.notes().join("\n");
        for part in [
            "baseline, seed 1: failed, and does not count: the disk is full",
            "good, seed 2: stopped, and counts with what it has: val/auc > 0.9 was not met",
            "1 of 9 runs are open",
        ] {
            assert!(notes.contains(part), "`{part}` is not in: {notes}");
        }
    }

    #[test]
    fn without_a_single_run_or_with_one_seed_nothing_is_claimed() {
        let (plan, mut attempts) = plan(&["baseline", "good"], &[1]);
        let empty = plan.outcome(&attempts);
        assert!(empty.variants.iter().all(|v| v.best.is_none() && v.cost.is_none()) && !empty.complete);
        assert_eq!(empty.rows()[1][1..7], ["–"; 6].map(str::to_owned));
        for (attempt, best) in attempts.iter_mut().zip([0.5, 0.9]) {
            attempt.ended(&summary(Status::Finished, best, 1.0), "val/auc");
        }
        let one = plan.outcome(&attempts);
        assert!(!one.variants[1].clear && one.notes().join("\n").contains("use more seeds"));
        assert_eq!(one.rows()[1][2], "+0.4000 (1)");
    }

    #[test]
    fn the_files_hold_the_same_and_no_cell_breaks_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let (plan, mut attempts) = example();
        attempts[3].failed("first | line\nsecond".to_owned());
        let ablation = plan.outcome(&attempts);
        ablation.write(dir.path()).unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.path().join(RESULT)).unwrap()).unwrap();
        // Two pairs are left, of 0.10 and 0.11: half their difference is the error.
        assert_eq!(json["variants"][1]["clear"], true);
        assert!(near(json["variants"][1]["standard_error"].as_f64(), 0.005));
        assert_eq!(json["variants"][1]["difference"]["n"], 2);
        assert_eq!(json["runs"].as_array().unwrap().len(), 9);
        let text = std::fs::read_to_string(dir.path().join(MARKDOWN)).unwrap();
        assert!(
            text.contains("# Ablation of r.toml") && text.contains("| baseline | `loss.scale=20` |"),
            "{text}"
        );
        for row in text.lines().filter(|l| l.starts_with('|')) {
            let columns = row.replace("\\|", "").matches('|').count() - 1;
            assert!([2, 7, 8].contains(&columns), "{row}");
        }
        assert!(text.contains("| baseline-seed2 | – | – | – | – | – | failed |"), "{text}");
    }
}
