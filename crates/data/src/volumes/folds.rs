//! Splits of cases into training and validation. None puts a patient on both sides, but for splits by slices.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::dataset::first_few;
use crate::rng::{Stream, rng};
use crate::tiles::below;
use crate::volumes::cases::Case;
use crate::{DataError, Result};

/// Indices of cases, ascending, no index in both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Split {
    /// To train on.
    pub train: Vec<usize>,
    /// To validate on.
    pub validation: Vec<usize>,
}

impl Split {
    fn by(n: usize, is_validation: impl Fn(usize) -> bool) -> Self {
        let (validation, train) = (0..n).partition(|&i| is_validation(i));
        Self { train, validation }
    }

    fn nonempty(self, accepted: &str) -> Result<Self> {
        let (train, validation) = (self.train.len(), self.validation.len());
        if train == 0 || validation == 0 {
            return Err(DataError::content(
                "split",
                format!("leaves {train} cases to train and {validation} to validate on; {accepted}"),
            ));
        }
        Ok(self)
    }
}

/// `k` folds: every case is in the validation part of one of them. Patients stay whole, and each fold has the share
/// of each class that all cases have, as nearly as a greedy choice gets it: the patients whose cases are the least
/// balanced are placed first, each where the shares of the classes then differ least between the folds (in the
/// spirit of scikit-learn's `StratifiedGroupKFold`). Cases without a class count as one class of their own.
///
/// # Errors
/// Fewer than 2 folds, or fewer patients than folds.
pub fn stratified(cases: &[Case], k: usize, seed: u64) -> Result<Vec<Split>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, case) in cases.iter().enumerate() {
        groups.entry(&case.patient).or_default().push(i);
    }
    if k < 2 || groups.len() < k {
        let what = if groups.len() == cases.len() { "cases" } else { "patients" };
        return Err(DataError::content(
            "split",
            format!(
                "{k} folds of {} {what}; accepted: 2 folds or more, and no more than {what}",
                groups.len()
            ),
        ));
    }
    let unlabelled = cases.iter().filter_map(|case| case.class).max().map_or(0, |class| class + 1);
    let class_of = |i: usize| cases[i].class.unwrap_or(unlabelled);
    let mut totals = vec![0.0f64; unlabelled + 1];
    for i in 0..cases.len() {
        totals[class_of(i)] += 1.0;
    }
    let mut groups: Vec<(Vec<usize>, Vec<f64>)> = groups
        .into_values()
        .map(|members| {
            let mut counts = vec![0.0; totals.len()];
            members.iter().for_each(|&i| counts[class_of(i)] += 1.0);
            (members, counts)
        })
        .collect();
    let mut draw = rng(seed, Stream::Folds, 0);
    for i in (1..groups.len()).rev() {
        groups.swap(i, below(&mut draw, i as u64 + 1) as usize);
    }
    // Stable, so that patients alike stay in the drawn order.
    groups.sort_by(|a, b| deviation(&b.1).total_cmp(&deviation(&a.1)));

    let mut folds: Vec<(Vec<usize>, Vec<f64>)> = vec![(Vec::new(), vec![0.0; totals.len()]); k];
    for (members, counts) in groups {
        // The sum over classes of the deviation between folds of the class's share there, were the patient placed in
        // `fold`; all else equal, the fold with the fewest cases.
        let cost = |fold: usize| -> f64 {
            (0..totals.len())
                .filter(|&class| totals[class] > 0.0)
                .map(|class| {
                    let shares: Vec<f64> = folds
                        .iter()
                        .enumerate()
                        .map(|(f, (_, held))| {
                            (held[class] + if f == fold { counts[class] } else { 0.0 }) / totals[class]
                        })
                        .collect();
                    deviation(&shares)
                })
                .sum()
        };
        let mut best = (0, f64::INFINITY);
        for fold in 0..k {
            let cost = cost(fold);
            let fewer = folds[fold].0.len() < folds[best.0].0.len();
            if cost < best.1 - 1e-12 || (cost - best.1).abs() <= 1e-12 && fewer {
                best = (fold, cost);
            }
        }
        let (held, sums) = &mut folds[best.0];
        held.extend(members);
        sums.iter_mut().zip(&counts).for_each(|(sum, count)| *sum += count);
    }
    folds
        .iter()
        .map(|(held, _)| {
            let held: BTreeSet<usize> = held.iter().copied().collect();
            Split::by(cases.len(), |i| held.contains(&i)).nonempty("accepted: fewer folds")
        })
        .collect()
}

fn deviation(values: &[f64]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// The number in a name: its last run of digits, `hippocampus_118` is 118.
pub fn number_in(name: &str) -> Option<u64> {
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = name[..end]
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
    name[start..end].parse().ok()
}

/// Validates on the cases whose [number](number_in) is divisible by `n`.
///
/// # Errors
/// A name without a number, `n` below 2, a patient on both sides, a side without cases.
pub fn every(cases: &[Case], n: u64) -> Result<Split> {
    if n < 2 {
        return Err(DataError::content("split", format!("every {n}-th case; accepted: 2 or more")));
    }
    let numbers: Vec<u64> = cases
        .iter()
        .map(|case| {
            number_in(&case.id).ok_or_else(|| {
                DataError::content("split", format!("case {} has no number in its name", case.id))
            })
        })
        .collect::<Result<_>>()?;
    let split = Split::by(cases.len(), |i| numbers[i].is_multiple_of(n));
    apart(cases, split.nonempty("accepted: a number that divides some but not all")?)
}

/// Validates on the last `n` cases.
///
/// # Errors
/// If nothing would be left for either side; a patient on both.
pub fn last_cases(cases: &[Case], n: usize) -> Result<Split> {
    let last = cases.len().saturating_sub(1);
    let first = cases.len().saturating_sub(n);
    apart(cases, Split::by(cases.len(), |i| i >= first).nonempty(&format!("accepted: 1 to {last}"))?)
}

fn apart(cases: &[Case], split: Split) -> Result<Split> {
    let trained: HashMap<&str, usize> = split.train.iter().map(|&i| (cases[i].patient.as_str(), i)).collect();
    for &i in &split.validation {
        if let Some(&other) = trained.get(cases[i].patient.as_str()) {
            return Err(DataError::content(
                "split",
                format!(
                    "patient {} would be on both sides: case {} is trained on, {} validated on",
                    cases[i].patient, cases[other].id, cases[i].id
                ),
            ));
        }
    }
    Ok(split)
}

/// Cuts every volume in two: all but the last `n` slices to train on, the last `n` to validate on. `depths` are the
/// depths of the volumes as stored, one a case. For data sets of one volume or a few; neighbouring slices are alike, so
/// the validation is easier than on another volume.
///
/// # Errors
/// A volume without slices left on either side.
pub fn last_slices(cases: &[Case], depths: &[usize], n: usize) -> Result<(Vec<Case>, Vec<Case>)> {
    let mut train = Vec::new();
    let mut validation = Vec::new();
    for (case, &depth) in cases.iter().zip(depths) {
        let range = case.slices.clone().unwrap_or(0..depth);
        if n == 0 || n >= range.len() {
            return Err(DataError::content(
                case.images.first().cloned().unwrap_or_default(),
                format!(
                    "cannot set apart the last {n} of {} slices; accepted: 1 to {}",
                    range.len(),
                    range.len().saturating_sub(1)
                ),
            ));
        }
        let middle = range.end - n;
        train.push(Case { slices: Some(range.start..middle), ..case.clone() });
        validation.push(Case { slices: Some(middle..range.end), ..case.clone() });
    }
    Ok((train, validation))
}

#[derive(serde::Deserialize)]
struct StoredSplit {
    train: Vec<String>,
    #[serde(alias = "validation")]
    val: Vec<String>,
}

fn stored(path: &Path) -> Result<Vec<StoredSplit>> {
    let bytes = std::fs::read(path).map_err(|e| DataError::io(path, "cannot read", e))?;
    let stored: Vec<StoredSplit> = serde_json::from_slice(&bytes)
        .map_err(|e| DataError::format_at(path, e.line().max(1), "JSON", e.to_string()))?;
    if stored.is_empty() {
        return Err(DataError::content(path, "has no folds"));
    }
    Ok(stored)
}

/// Number of folds in a file that [`from_file`] reads.
///
/// # Errors
/// Unreadable JSON, no folds.
pub fn count(path: &Path) -> Result<usize> {
    Ok(stored(path)?.len())
}

/// Folds from a JSON file as nnU-Net's `splits_final.json`: a list of `{"train": [ids], "val": [ids]}`. Cases it does
/// not name are on neither side.
///
/// # Errors
/// Unreadable JSON, ids that no case has, an id or a patient on both sides, an empty side.
pub fn from_file(path: &Path, cases: &[Case]) -> Result<Vec<Split>> {
    let stored = stored(path)?;
    let index: HashMap<&str, usize> = cases.iter().enumerate().map(|(i, c)| (c.id.as_str(), i)).collect();
    let find = |ids: &[String], fold: usize| -> Result<Vec<usize>> {
        let unknown: Vec<&String> = ids.iter().filter(|id| !index.contains_key(id.as_str())).collect();
        if !unknown.is_empty() {
            let known: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
            return Err(DataError::content(
                path,
                format!(
                    "fold {fold} names {} of no case here; there are {}",
                    first_few(&unknown),
                    first_few(&known)
                ),
            ));
        }
        let found: BTreeSet<usize> = ids.iter().filter_map(|id| index.get(id.as_str()).copied()).collect();
        Ok(found.into_iter().collect())
    };
    let in_fold = |fold: usize, error: DataError| match error {
        DataError::Content { problem, .. } => DataError::content(path, format!("fold {fold}: {problem}")),
        other => other,
    };
    stored
        .iter()
        .enumerate()
        .map(|(fold, stored)| {
            let split = Split { train: find(&stored.train, fold)?, validation: find(&stored.val, fold)? };
            let split = split.nonempty("accepted: one or more of each").map_err(|e| in_fold(fold, e))?;
            // Also an id on both sides is a patient on both.
            apart(cases, split).map_err(|e| in_fold(fold, e))
        })
        .collect()
}
