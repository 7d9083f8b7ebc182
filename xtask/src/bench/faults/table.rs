//! The tables of the fault bench.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::catalogue::{BENCHES, FAULTS, Fault};
use super::{Arm, Row, Said, mendable, right};

const HEAD: &str = "# The guard's bench

Written by `cargo run --release -p xtask -- bench faults --page docs/guard-bench.md` (with the real sets at hand).

Faults are put into small trainings of every recipe, on generated data and on a real set: some ten seconds each, on one thread. *Settings* that make what they say happen; *wiring*:
the run's `config.toml` says one thing and the recipe does another; *data*, damaged and written as files; *the disk*: a checkpoint that was cut in half or changed. What a bench says of its
healthy run is not counted as found. *Named right first*: the first cause that a user is told, be it by the preflight (what failed before what is worth a look), by the guard after its experiments, or at the end; where
settings or data are refused, the words. *To mend* are faults for which a setting exists, or a checkpoint that was damaged; a run is mended where its best weights reach 98 % of what the healthy
runs reach on average over the seeds. Some faults do no harm here: their runs reach that when left alone. Beside the guard: the run left *alone*, one remedy drawn at random from all there are and taken at the same step without a trial, and *early stop* after three validations without a better one.

";
/// Of the healthy run's metric, what counts as repaired.
const REPAIRED: f64 = 0.98;

/// What became of a row.
struct Verdict {
    found: bool,
    named: Option<bool>,
    by_preflight: bool,
    in_training: bool,
    step: Option<u64>,
    share: [Option<f64>; 4],
}

pub fn page(rows: &[Row]) -> String {
    // One healthy run beside another differs by chance alone: the mean is less of a lottery.
    let mut healthy: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.fault == "healthy") {
        healthy.entry(row.bench.as_str()).or_default().extend(row.alone.metric);
    }
    let mean = |bench: &str| {
        let all = healthy.get(bench).filter(|all| !all.is_empty())?;
        Some(all.iter().sum::<f64>() / all.len() as f64)
    };
    let baseline: BTreeMap<&str, Vec<&String>> = {
        let mut all: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for row in rows.iter().filter(|r| r.fault == "healthy") {
            let known = all.entry(row.bench.as_str()).or_default();
            known.extend(row.findings.iter().map(|(_, _, rule)| rule));
        }
        all
    };
    // What the preflight says of the healthy run, so many times.
    let mut usual: BTreeMap<&str, Vec<&Said>> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.fault == "healthy" && r.seed == 1) {
        usual.entry(row.bench.as_str()).or_default().extend(&row.preflight);
    }
    let mut out = HEAD.to_owned();
    let alarms = rows.iter().filter(|r| r.fault == "healthy" && r.alarm.is_some()).count();
    let critical = rows
        .iter()
        .filter(|r| r.fault == "healthy" && r.findings.iter().any(|(_, s, _)| s == "critical"))
        .count();
    let _ = writeln!(
        out,
        "## Healthy runs\n\n{} runs, {alarms} alarms, {critical} with a critical finding. Under *heal* a setting is changed where the preflight advises it and a branch does at least as well.\n\n| bench | seed | metric | under heal | changed | warnings | preflight |\n|---|---|---|---|---|---|---|",
        healthy.values().map(Vec::len).sum::<usize>()
    );
    for row in rows.iter().filter(|r| r.fault == "healthy") {
        let rules: Vec<&str> = row.findings.iter().map(|(_, _, rule)| rule.as_str()).collect();
        let checks: Vec<String> = row.preflight.iter().map(|(c, v, _)| format!("{v} {c}")).collect();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.bench,
            row.seed,
            number(row.alone.metric),
            number(row.healed.as_ref().and_then(|h| h.metric)),
            row.chosen.join("; "),
            rules.join(", "),
            checks.join(", ")
        );
    }
    let judged = |row: &Row, fault: &Fault| {
        let reference = mean(&row.bench);
        let known = baseline.get(row.bench.as_str());
        let new = |name: &String| known.is_none_or(|k| !k.contains(&name));
        let said = row.refused.as_ref().map(|why| {
            let why = why.to_lowercase();
            fault.words.iter().any(|word| why.contains(&word.to_lowercase()))
        });
        let mut left = usual.get(row.bench.as_str()).cloned().unwrap_or_default();
        let mut checks: Vec<_> = Vec::new();
        for said in &row.preflight {
            match left.iter().position(|known| *known == said) {
                Some(place) => drop(left.swap_remove(place)),
                None => checks.push(said),
            }
        }
        // What failed speaks louder than what was worth a look.
        checks.sort_by_key(|(_, verdict, _)| verdict != "FAIL");
        let first_check = checks.iter().find_map(|(.., cause)| cause.as_deref());
        let findings: Vec<_> = row.findings.iter().filter(|(.., rule)| new(rule)).collect();
        let in_training = row.alarm.is_some() || row.attempted.is_some() || !findings.is_empty();
        // In the order a user would read them: before training, at the alarm, at the end.
        let at_the_alarm = row.alarm.as_ref().and_then(|(_, causes)| causes.first());
        let first = first_check
            .or(row.decided.first().map(String::as_str))
            .or(at_the_alarm.map(String::as_str))
            .or(row.causes.first().map(String::as_str));
        let share = |arm: Option<&Arm>| Some(arm?.metric? / reference?);
        Verdict {
            found: row.refused.is_some() || !checks.is_empty() || in_training,
            named: said.or(first.map(|cause| right(fault, cause))),
            by_preflight: row.refused.is_some() || !checks.is_empty(),
            in_training,
            step: row
                .alarm
                .as_ref()
                .map(|(step, _)| *step)
                .or(row.attempted)
                .or(findings.first().map(|(step, ..)| *step)),
            share: [
                share(Some(&row.alone)),
                share(row.healed.as_ref().or(Some(&row.alone))),
                share(row.random.as_ref().or(Some(&row.alone))),
                share(Some(&row.early)),
            ],
        }
    };
    let mut totals = Totals::default();
    let mut lines = String::new();
    for fault in FAULTS {
        let mine: Vec<(&Row, Verdict)> =
            rows.iter().filter(|r| r.fault == fault.id).map(|r| (r, judged(r, fault))).collect();
        if mine.is_empty() {
            continue;
        }
        let n = mine.len();
        let count = |f: &dyn Fn(&Verdict) -> bool| mine.iter().filter(|(_, v)| f(v)).count();
        let (found, named) = (count(&|v| v.found), count(&|v| v.named == Some(true)));
        let repaired = |arm: usize| count(&|v| v.share[arm].is_some_and(|s| s >= REPAIRED));
        let trained = mine.iter().filter(|(r, _)| r.refused.is_none()).count();
        let steps = median(mine.iter().filter_map(|(_, v)| v.step.map(|s| s as f64)).collect());
        let extra = median(
            mine.iter()
                .filter(|(r, _)| r.healed.is_some())
                .map(|(r, _)| r.extra as f64 / r.alone.steps.max(1) as f64)
                .collect(),
        );
        totals.add(fault, n, found, named, trained, [0, 1, 2, 3].map(repaired));
        if mendable(fault) {
            let harmed = mine.iter().filter(|(_, v)| v.share[0].is_some_and(|alone| alone < REPAIRED));
            for (_, verdict) in harmed {
                totals.harmed += 1;
                for (sum, share) in totals.rescued.iter_mut().zip(verdict.share) {
                    *sum += usize::from(share.is_some_and(|s| s >= REPAIRED));
                }
            }
        }
        totals.extra.extend(
            mine.iter()
                .filter(|(r, _)| r.healed.is_some())
                .map(|(r, _)| r.extra as f64 / r.alone.steps.max(1) as f64),
        );
        let _ = writeln!(
            lines,
            "| {} | {n} | {found} | {} | {} | {} | {named} | {} |",
            fault.id,
            count(&|v| v.by_preflight),
            count(&|v| v.in_training),
            steps.map_or_else(|| "–".to_owned(), |s| format!("{s:.0}")),
            if mendable(fault) {
                format!(
                    "{} | {} | {} | {} | {} | {}",
                    trained,
                    repaired(0),
                    repaired(1),
                    repaired(2),
                    repaired(3),
                    extra.map_or_else(|| "–".to_owned(), |e| format!("{:.0} %", 100.0 * e))
                )
            } else {
                "– | – | – | – | – | –".to_owned()
            }
        );
    }
    let _ = write!(
        out,
        "\n## Faults\n\n| fault | runs | found | by preflight | in training | at step (median) | cause named right first | to mend | alone | healed | random remedy | early stop | extra work (median) |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n{lines}{}",
        totals.line()
    );
    let _ = writeln!(
        out,
        "\n{} benches: {}.",
        BENCHES.len(),
        BENCHES.iter().map(|b| b.name).collect::<Vec<_>>().join("; ")
    );
    out
}

#[derive(Default)]
struct Totals {
    runs: usize,
    found: usize,
    named: usize,
    mendable: usize,
    repaired: [usize; 4],
    /// Of those to mend, runs that reach less when left alone; and what becomes of them.
    harmed: usize,
    rescued: [usize; 4],
    extra: Vec<f64>,
}

impl Totals {
    fn add(
        &mut self,
        fault: &Fault,
        runs: usize,
        found: usize,
        named: usize,
        trained: usize,
        repaired: [usize; 4],
    ) {
        self.runs += runs;
        self.found += found;
        self.named += named;
        if mendable(fault) {
            self.mendable += trained;
            for (sum, n) in self.repaired.iter_mut().zip(repaired) {
                *sum += n;
            }
        }
    }

    fn line(&self) -> String {
        let share = |n: usize, of: usize| format!("{n} ({:.0} %)", 100.0 * n as f64 / of.max(1) as f64);
        let counts = |of: usize, counts: [usize; 4]| counts.map(|n| share(n, of)).join(" | ");
        let extra =
            median(self.extra.clone()).map_or_else(|| "–".to_owned(), |e| format!("{:.0} %", 100.0 * e));
        format!(
            "| **all** | {} | {} | | | | {} | {} | {} | {extra} |\n| **where it does harm** | | | | | | | {} | {} | |\n",
            self.runs,
            share(self.found, self.runs),
            share(self.named, self.runs),
            self.mendable,
            counts(self.mendable, self.repaired),
            self.harmed,
            counts(self.harmed, self.rescued)
        )
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
