//! From symptoms to causes.
//!
//! A small graph: each cause explains rules, with a weight that says how much a finding of that rule speaks for the cause by
//! itself. From `DIRECT` on the rule sees the cause itself (a learning rate far from a reference run's); under it the rule sees
//! what several causes do alike (a loss that explodes). A diagnosis leads with the fewest causes that explain what was found.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::Diagnosis;
use crate::finding::{Finding, Severity};

/// From this weight on a rule sees the cause itself.
const DIRECT: f64 = 0.7;
/// Causes named for one run.
const MOST: usize = 4;
/// Nothing is certain from a log alone.
const SUREST: f64 = 0.95;

/// A cause.
#[derive(Debug)]
pub struct Cause {
    /// Permanent, kebab-case.
    pub id: &'static str,
    /// What a person would say.
    pub summary: &'static str,
    /// Rules it explains, and how much each speaks for it.
    pub explains: &'static [(&'static str, f64)],
    /// What would decide.
    pub experiment: &'static str,
}

/// A cause of a run's findings.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Id of the cause.
    pub cause: &'static str,
    /// What a person would say.
    pub summary: &'static str,
    /// How much the findings speak for it, 0 to 0.95.
    pub confidence: f64,
    /// Rules of the findings it explains.
    pub explains: Vec<&'static str>,
    /// What would decide.
    pub experiment: &'static str,
    /// Other causes that explain the same about as well: the evidence does not decide.
    pub instead: Vec<&'static str>,
    /// What the log would need for rules that see this cause itself.
    pub would_tell: Vec<String>,
}

/// Every cause.
pub const CAUSES: &[Cause] = &[
    Cause {
        id: "learning-rate-too-high",
        summary: "the learning rate is too high",
        explains: &[
            ("rate-too-high", 0.9),
            ("exploding-loss", 0.55),
            ("exploding-gradient", 0.5),
            ("non-finite-loss", 0.5),
            ("unlearning", 0.5),
            ("oscillation", 0.5),
            ("metric-collapse", 0.45),
            ("never-learned", 0.4),
            ("all-negative-collapse", 0.35),
            ("second-epoch-drop", 0.3),
            ("clipping-always", 0.3),
            ("plateau", 0.3),
            ("at-trivial-floor", 0.3),
            ("vanishing-gradient", 0.3),
            ("best-not-last", 0.2),
        ],
        experiment: "sweep the rate over four decades for a few hundred steps each from the start",
    },
    Cause {
        id: "learning-rate-too-low",
        summary: "the learning rate is too low",
        explains: &[
            ("rate-too-low", 0.9),
            ("plateau", 0.3),
            ("never-learned", 0.3),
            ("at-trivial-floor", 0.3),
            ("second-epoch-drop", 0.25),
        ],
        experiment: "overfit one batch with the configured rate, and with ten and a hundred times as much",
    },
    Cause {
        id: "no-effective-warm-up",
        summary: "the learning rate does not warm up",
        explains: &[
            ("warmup-inactive", 0.9),
            ("exploding-loss", 0.2),
            ("non-finite-loss", 0.2),
            ("all-negative-collapse", 0.2),
            ("metric-collapse", 0.15),
            ("never-learned", 0.2),
            ("exploding-gradient", 0.2),
        ],
        experiment: "log the rate at every step of the first epoch",
    },
    Cause {
        id: "averaged-weights-not-trained",
        summary: "what is validated is an average of mostly initial weights",
        explains: &[
            ("averaged-weights-lag", 0.95),
            ("second-epoch-drop", 0.5),
            ("at-trivial-floor", 0.2),
            ("never-learned", 0.15),
            ("all-negative-collapse", 0.15),
            ("metric-collapse", 0.1),
        ],
        experiment: "validate the live weights beside the averaged ones",
    },
    Cause {
        id: "memorises-training-set",
        summary: "the network memorises its training set",
        explains: &[("overfitting", 0.9), ("train-val-gap", 0.8), ("best-not-last", 0.5)],
        experiment: "train on half of the data: the gap widens if this is it",
    },
    Cause {
        id: "training-undoes-itself",
        summary: "training undoes itself: the steps are too large for where the weights are",
        explains: &[
            ("unlearning", 0.75),
            ("metric-collapse", 0.5),
            ("exploding-loss", 0.3),
            ("best-not-last", 0.3),
            ("second-epoch-drop", 0.2),
            ("oscillation", 0.3),
        ],
        experiment: "go on from the best checkpoint on two short branches, one with a third of the rate",
    },
    Cause {
        id: "labels-or-loss-wrong",
        summary: "the labels are not what the loss takes them for",
        explains: &[
            ("label-out-of-range", 0.95),
            ("degenerate-labels", 0.85),
            ("prevalence-mismatch", 0.75),
            ("ignored-label-mass", 0.75),
            ("loss-exactly-zero", 0.5),
            ("at-trivial-floor", 0.3),
            ("all-negative-collapse", 0.3),
            ("never-learned", 0.3),
            ("plateau", 0.2),
        ],
        experiment: "overfit one batch, and look at its images, labels and predictions",
    },
    Cause {
        id: "rare-class-unheard",
        summary: "the loss does not hear the rare class",
        explains: &[("all-negative-collapse", 0.4), ("at-trivial-floor", 0.2)],
        experiment: "a few hundred steps with a Dice term or class weights",
    },
    Cause {
        id: "class-weights-extreme",
        summary: "the loss hears one class only: its weights are extreme",
        explains: &[
            ("class-weights-extreme", 0.9),
            ("all-negative-collapse", 0.25),
            ("at-trivial-floor", 0.15),
            ("never-learned", 0.1),
        ],
        experiment: "a few hundred steps without class weights",
    },
    Cause {
        id: "regulariser-outweighs-labels",
        summary: "a term without labels outweighs the labels",
        explains: &[
            ("loss-term-outweighs", 0.9),
            ("all-negative-collapse", 0.2),
            ("at-trivial-floor", 0.15),
            ("never-learned", 0.1),
            ("plateau", 0.1),
        ],
        experiment: "a branch with a hundredth of that term's weight",
    },
    Cause {
        id: "weights-decayed-away",
        summary: "the weights are pulled to zero",
        explains: &[
            ("weights-shrinking", 0.9),
            ("all-negative-collapse", 0.2),
            ("at-trivial-floor", 0.15),
            ("never-learned", 0.1),
            ("vanishing-gradient", 0.2),
            ("plateau", 0.1),
        ],
        experiment: "a branch with a weight decay of 0.01",
    },
    Cause {
        id: "split-leaks",
        summary: "training and validation share samples",
        explains: &[("split-leak", 0.95), ("loss-exactly-zero", 0.4)],
        experiment: "hash the samples of both splits",
    },
    Cause {
        id: "classes-balanced-twice",
        summary: "classes are balanced twice",
        explains: &[("double-balancing", 0.9), ("reweighting-shock", 0.3), ("metric-collapse", 0.1)],
        experiment: "a short branch with the sampler alone",
    },
    Cause {
        id: "re-weighting",
        summary: "the re-weighting of classes starts at the wrong time, or too hard",
        explains: &[
            ("reweighting-shock", 0.9),
            ("reweighting-never-started", 0.95),
            ("metric-collapse", 0.2),
            ("best-not-last", 0.2),
        ],
        experiment: "a branch from the step before it, without re-weighting",
    },
    Cause {
        id: "discriminator-too-strong",
        summary: "the discriminator has won",
        explains: &[("discriminator-won", 0.9), ("self-training-dead", 0.6), ("metric-collapse", 0.1)],
        experiment: "a branch with a tenth of the discriminator's rate",
    },
    Cause {
        id: "admission-threshold",
        summary: "the threshold of self-training does not select",
        explains: &[("self-training-admits-all", 0.9), ("self-training-dead", 0.5)],
        experiment: "the histogram of the scores that the threshold is compared with",
    },
    Cause {
        id: "schedule-does-not-fit",
        summary: "a schedule does not fit the length of the run",
        explains: &[("schedule-horizon-mismatch", 0.9), ("plateau", 0.25), ("rate-too-low", 0.2)],
        experiment: "plot every schedule over the planned steps",
    },
    Cause {
        id: "parameter-groups",
        summary: "parameter groups do not have the rates they should",
        explains: &[
            ("same-rate-for-head-and-backbone", 0.9),
            ("group-rate-lost", 0.95),
            ("metric-collapse", 0.15),
            ("reweighting-shock", 0.1),
        ],
        experiment: "log the rate of each group",
    },
    Cause {
        id: "configuration-not-effective",
        summary: "something declared never takes effect",
        explains: &[("declared-not-effective", 0.9), ("inert-loss-term", 0.85), ("warmup-inactive", 0.6)],
        experiment: "log the effective value of each declared one",
    },
    Cause {
        id: "gradient-bound-too-tight",
        summary: "the gradient's bound decides every step",
        explains: &[("clipping-always", 0.8), ("plateau", 0.2), ("rate-too-low", 0.2)],
        experiment: "a branch with ten times the bound",
    },
    Cause {
        id: "numbers-overflow",
        summary: "numbers overflow: half precision, a logarithm or a division of 0, a value in the data",
        explains: &[("non-finite-loss", 0.4), ("exploding-gradient", 0.2)],
        experiment: "repeat the batch before the first NaN in single precision, layer by layer",
    },
    Cause {
        id: "units-dead",
        summary: "layers have stopped passing a gradient",
        explains: &[("vanishing-gradient", 0.8), ("never-learned", 0.3), ("inert-loss-term", 0.2)],
        experiment: "the gradient's norm of each layer on one batch",
    },
    Cause {
        id: "experts-collapsed",
        summary: "all tokens go to few experts",
        explains: &[("expert-collapse", 0.9), ("inert-loss-term", 0.3)],
        experiment: "the load of each expert with ten times the load-balance weight",
    },
    Cause {
        id: "wrong-weights",
        summary: "the weights in use are not those meant",
        explains: &[
            ("weights-not-loaded", 0.95),
            ("checkpoint-does-not-reproduce", 0.9),
            ("at-trivial-floor", 0.1),
        ],
        experiment: "list the keys that were found, and evaluate the checkpoint again",
    },
    Cause {
        id: "input-pipeline",
        summary: "the input pipeline is at fault",
        explains: &[("data-stall", 0.9), ("repeated-batches", 0.9)],
        experiment: "time and fingerprint the batches without training",
    },
    Cause {
        id: "ended-early",
        summary: "the run ended before its time",
        explains: &[("truncated-run", 0.9)],
        experiment: "look at the last lines of the log and at the machine's memory",
    },
];

/// The fewest causes that explain the findings that matter, the likeliest first.
pub fn explain(diagnosis: &Diagnosis) -> Vec<Explanation> {
    let loud = diagnosis.findings.iter().any(|f| f.severity >= Severity::Warning);
    let matters = |f: &&Finding| f.severity >= if loud { Severity::Warning } else { Severity::Info };
    let findings: Vec<&Finding> = diagnosis.findings.iter().filter(matters).collect();
    let mut open: BTreeSet<&str> = findings.iter().map(|f| f.rule).collect();
    let mut explanations: Vec<Explanation> = Vec::new();
    while !open.is_empty() && explanations.len() < MOST {
        // By how much a cause explains of what is still open; then by how sure it is of everything.
        let mut ranked: Vec<(f64, f64, &Cause)> = CAUSES
            .iter()
            .filter(|cause| explanations.iter().all(|e| e.cause != cause.id))
            .map(|cause| (score(cause, &findings, &open), confidence(cause, &findings), cause))
            .filter(|(gain, ..)| *gain > 0.0)
            .collect();
        ranked.sort_by(|a, b| (b.0, b.1).partial_cmp(&(a.0, a.1)).unwrap_or(std::cmp::Ordering::Equal));
        let Some(&(gain, sure, cause)) = ranked.first() else { break };
        let explains: Vec<&'static str> = cause
            .explains
            .iter()
            .map(|(rule, _)| *rule)
            .filter(|rule| findings.iter().any(|f| f.rule == *rule))
            .collect();
        let direct = cause.explains.iter().any(|(rule, w)| *w >= DIRECT && explains.contains(rule));
        // Where only symptoms speak, whatever explains them about as well is as likely.
        let instead = ranked[1..]
            .iter()
            .filter(|(other, ..)| !direct && *other > 0.7 * gain)
            .map(|(.., other)| other.id)
            .collect();
        let would_tell = if direct { Vec::new() } else { missing_for(cause, diagnosis) };
        for rule in &explains {
            open.remove(rule);
        }
        explanations.push(Explanation {
            cause: cause.id,
            summary: cause.summary,
            confidence: (sure * 100.0).round() / 100.0,
            explains,
            experiment: cause.experiment,
            instead,
            would_tell,
        });
    }
    explanations
}

/// How much the findings of the open rules speak for a cause, critical ones twice.
fn score(cause: &Cause, findings: &[&Finding], open: &BTreeSet<&str>) -> f64 {
    let weigh = |finding: &&Finding| {
        let weight = weight(cause, finding, findings)?;
        let counts = open.contains(finding.rule);
        counts.then_some(weight * if finding.severity == Severity::Critical { 2.0 } else { 1.0 })
    };
    findings.iter().filter_map(weigh).sum()
}

/// The probability that at least one of the findings is right about the cause, were they independent.
fn confidence(cause: &Cause, findings: &[&Finding]) -> f64 {
    let mut seen = BTreeSet::new();
    let doubts = findings
        .iter()
        .filter(|f| seen.insert(f.rule))
        .filter_map(|f| weight(cause, f, findings))
        .map(|w| 1.0 - w);
    (1.0 - doubts.product::<f64>()).min(SUREST)
}

/// How much one finding speaks for a cause. A symptom older than the cause's own evidence speaks half as much for it.
fn weight(cause: &Cause, finding: &Finding, findings: &[&Finding]) -> Option<f64> {
    let of = |rule: &str| cause.explains.iter().find(|(known, _)| *known == rule).map(|(_, w)| *w);
    let weight = of(finding.rule)?;
    if weight >= DIRECT {
        return Some(weight);
    }
    let began = findings
        .iter()
        .filter(|f| of(f.rule).is_some_and(|w| w >= DIRECT))
        .filter_map(|f| f.first_step)
        .min();
    let older = matches!((began, finding.first_step), (Some(cause), Some(symptom)) if symptom < cause);
    Some(if older { weight / 2.0 } else { weight })
}

/// What the log would need for rules that see the cause itself.
fn missing_for(cause: &Cause, diagnosis: &Diagnosis) -> Vec<String> {
    let direct = cause.explains.iter().filter(|(_, w)| *w >= DIRECT);
    let mut needs: Vec<String> = direct
        .filter_map(|(rule, _)| diagnosis.not_applicable.iter().find(|(id, _)| id == rule))
        .flat_map(|(_, needs)| needs.iter().cloned())
        .collect();
    let mut seen = BTreeSet::new();
    needs.retain(|need| seen.insert(need.clone()));
    needs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleMeta;
    use crate::rules::RULES;

    #[test]
    fn the_graph_knows_every_rule_and_no_other() {
        let mut ids = BTreeSet::new();
        for cause in CAUSES {
            assert!(ids.insert(cause.id), "{} is declared twice", cause.id);
            for (rule, weight) in cause.explains {
                assert!(crate::rules::by_id(rule).is_some(), "{}: `{rule}` is no rule", cause.id);
                assert!((0.05..=SUREST).contains(weight), "{}: {rule}", cause.id);
            }
        }
        for rule in RULES {
            let id = rule.meta().id;
            assert!(
                CAUSES.iter().any(|c| c.explains.iter().any(|(r, _)| *r == id)),
                "no cause explains {id}"
            );
        }
    }

    fn found(rules: &[(&'static str, Severity, u64)]) -> Diagnosis {
        let findings = rules.iter().map(|&(id, severity, step)| {
            let meta = RuleMeta { id, summary: "", severity, docs: "" };
            Finding::new(&meta, "").at(step, step, step)
        });
        Diagnosis { findings: findings.collect(), ..Diagnosis::default() }
    }

    fn causes(rules: &[(&'static str, Severity, u64)]) -> Vec<&'static str> {
        explain(&found(rules)).into_iter().map(|e| e.cause).collect()
    }

    #[test]
    fn what_sees_a_cause_itself_leads_over_symptoms() {
        use Severity::{Critical, Warning};
        let drop = ("second-epoch-drop", Critical, 2);
        assert_eq!(causes(&[drop, ("averaged-weights-lag", Critical, 1)])[0], "averaged-weights-not-trained");
        let dead = ("self-training-dead", Warning, 900);
        assert_eq!(causes(&[dead, ("discriminator-won", Warning, 300)]), ["discriminator-too-strong"]);
        assert_eq!(
            causes(&[("overfitting", Critical, 5), ("best-not-last", Warning, 5)]),
            ["memorises-training-set"]
        );
        assert_eq!(causes(&[]), Vec::<&str>::new());
    }

    #[test]
    fn symptoms_alone_do_not_decide() {
        let explained = explain(&found(&[("never-learned", Severity::Critical, 5)]));
        assert_eq!(explained.len(), 1);
        assert!(explained[0].confidence < 0.5 && !explained[0].instead.is_empty());
    }
}
