//! Every signal that Trimtab logs: name, unit and meaning, in one place.
//!
//! A name is `area/quantity`, or `area/quantity/group` where one quantity exists several times: the
//! learning rate of each parameter group, the score of student and teacher. Names are part of the
//! run directory's format: they are never renamed or given another meaning.
//!
//! Units: `1` a plain number or ratio, `0/1` a flag, `s` seconds, `count` a number of things,
//! `index` a position counted from 0.

/// One quantity of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// `area/quantity`, lower case.
    pub name: &'static str,
    /// The unit; see the [module](self) for the list.
    pub unit: &'static str,
    /// One line: what the number says, and its range where that is not plain.
    pub meaning: &'static str,
}

impl Signal {
    /// The name of this quantity for one group: `optim/learning_rate` and `head` give
    /// `optim/learning_rate/head`.
    pub fn group(&self, group: &str) -> String {
        format!("{}/{group}", self.name)
    }

    /// The group in `name` when it is this signal: `Some("")` for the ungrouped name, `None` when it
    /// is another signal. Groups may themselves contain `/`.
    pub fn group_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        match name.strip_prefix(self.name)? {
            "" => Some(""),
            rest => rest.strip_prefix('/'),
        }
    }
}

/// The signal that a logged name belongs to, grouped or not.
pub fn of(name: &str) -> Option<&'static Signal> {
    // The longest match: should one signal's name be another's with a group, the other one wins.
    ALL.iter()
        .copied()
        .filter(|signal| signal.group_of(name).is_some())
        .max_by_key(|signal| signal.name.len())
}

/// Which way a quantity is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Accuracy, Dice, AUC.
    Higher,
    /// Losses, error rates, distances.
    Lower,
}

impl Goal {
    /// Whether `a` is better than `b`; `NaN` is never better.
    pub fn better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Higher => a > b,
            Self::Lower => a < b,
        }
    }

    /// The value on a scale where higher is better.
    pub fn upward(self, value: f64) -> f64 {
        match self {
            Self::Higher => value,
            Self::Lower => -value,
        }
    }
}

/// Words that make a metric one where lower is better.
const LOWER: [&str; 31] = [
    "loss",
    "error",
    "err",
    "wer",
    "cer",
    "per",
    "ter",
    "mae",
    "mse",
    "rmse",
    "nll",
    "bce",
    "ce",
    "perplexity",
    "ppl",
    "distance",
    "hd",
    "hd95",
    "hausdorff",
    "asd",
    "assd",
    "fid",
    "kid",
    "lpips",
    "ece",
    "brier",
    "eer",
    "voi",
    "bpb",
    "mape",
    "smape",
];
/// Words that make a metric one where higher is better.
const HIGHER: [&str; 47] = [
    "accuracy",
    "acc",
    "aacc",
    "macc",
    "f1",
    "fscore",
    "dice",
    "mdice",
    "iou",
    "miou",
    "fwiou",
    "jaccard",
    "auc",
    "auroc",
    "auprc",
    "ap",
    "map",
    "ap50",
    "ap75",
    "map50",
    "map95",
    "apl",
    "apm",
    "aps",
    "ar",
    "precision",
    "recall",
    "sensitivity",
    "specificity",
    "ssim",
    "psnr",
    "bleu",
    "rouge",
    "rougel",
    "meteor",
    "kappa",
    "mcc",
    "r2",
    "score",
    "top1",
    "top5",
    "correlation",
    "pearson",
    "spearman",
    "ndcg",
    "mrr",
    "reward",
];

/// Which way a column of a trace is better: `None` where that is not known, or makes no sense.
pub fn goal(name: &str) -> Option<Goal> {
    let signal = of(name);
    let words = |text: &str| -> Option<Goal> {
        // The last word that says something: `val/metric/dice_loss` is a loss.
        text.split(|c: char| !c.is_ascii_alphanumeric()).rev().find_map(|word| {
            let word = word.to_ascii_lowercase();
            let is = |list: &[&str]| list.contains(&word.as_str());
            if is(&LOWER) {
                Some(Goal::Lower)
            } else if is(&HIGHER) {
                Some(Goal::Higher)
            } else {
                None
            }
        })
    };
    match signal {
        Some(s) if s.name.starts_with("loss/") || [GAN_LOSS_D, GAN_LOSS_G].contains(s) => Some(Goal::Lower),
        Some(s) if [VAL_METRIC, TRAIN_METRIC, TEST_METRIC].contains(s) => words(s.group_of(name)?),
        Some(s)
            if [
                VAL_LOSS,
                TRAIN_LOSS,
                TEST_LOSS,
                VAL_ERROR_RATE,
                VAL_CALIBRATION_ERROR,
                VAL_MAE,
                VAL_HD95,
            ]
            .contains(s) =>
        {
            Some(Goal::Lower)
        }
        Some(s)
            if [
                VAL_BEST_THRESHOLD,
                VAL_MEAN_PROBABILITY,
                VAL_POSITIVE_RATE,
                VAL_PREVALENCE,
                TRAIN_MEAN_PROBABILITY,
                TRAIN_POSITIVE_RATE,
                TRAIN_PREVALENCE,
                TRAIN_LABELLED,
                TRAIN_UNLABELLED,
            ]
            .contains(s) =>
        {
            None
        }
        Some(s) if s.name.starts_with("val/") || s.name.starts_with("train/") => Some(Goal::Higher),
        Some(_) => None,
        None => words(name),
    }
}

/// The fields of a record that are not signals.
pub const RESERVED: [&str; 3] = ["step", "epoch", "time"];

/// Declares the constants and [`ALL`] together, so that neither can lack what the other has.
macro_rules! signals {
    ($($constant:ident = $name:literal, $unit:literal, $meaning:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "` (", $unit, "): ", $meaning, ".")]
            pub const $constant: Signal = Signal { name: $name, unit: $unit, meaning: $meaning };
        )*

        /// Every signal, area by area.
        pub const ALL: &[&Signal] = &[$(&$constant),*];
    };
}

signals! {
    LOSS_TOTAL = "loss/total", "1", "the loss that is differentiated, all terms with their weights, mean over the batch";
    LOSS_SUPERVISED = "loss/supervised", "1", "sum of the weighted terms that use labels";
    LOSS_CONSISTENCY = "loss/consistency", "1", "disagreement of student and teacher, before its weight";
    LOSS_FOCAL = "loss/focal", "1", "focal term, before its weight";
    LOSS_DICE = "loss/dice", "1", "Dice term, before its weight";
    LOSS_BCE = "loss/bce", "1", "binary cross-entropy term, before its weight";
    LOSS_CROSS_ENTROPY = "loss/cross_entropy", "1", "cross-entropy term, before its weight";
    LOSS_LDAM = "loss/ldam", "1", "label-distribution-aware margin term, before its weight";
    LOSS_IOU = "loss/iou", "1", "intersection-over-union term, before its weight";
    LOSS_BOUNDARY = "loss/boundary", "1", "boundary term, before its weight";
    LOSS_CLDICE = "loss/cldice", "1", "centre-line Dice term, before its weight";
    LOSS_CONNECTIVITY = "loss/connectivity", "1", "connectivity term, before its weight";
    LOSS_EDGE = "loss/edge", "1", "edge term, before its weight";
    LOSS_LOAD_BALANCE = "loss/load_balance", "1", "load balance of the experts, before its weight";
    LOSS_DEEP_SUPERVISION = "loss/deep_supervision", "1", "terms on side outputs, before their weight";
    LOSS_SELF_TRAINING = "loss/self_training", "1", "cross-entropy on admitted pseudo-labels, before its weight";
    LOSS_FEATURE_MATCHING = "loss/feature_matching", "1", "distance of discriminator features, before its weight";

    LOSS_TERM = "loss/term", "1", "the term of the loss named by the group, where it has no name of its own here";

    WEIGHT_CONSISTENCY = "weight/consistency", "1", "weight of the consistency term in effect at this step";
    WEIGHT_CLASS = "weight/class", "1", "weight of the class named by the group in the loss at this step; 1 for every class where none counts more";
    WEIGHT_LOSS = "weight/loss", "1", "weight of the loss term named by the group in effect at this step";

    GRAD_NORM = "grad/norm", "1", "global 2-norm of the gradient before clipping, by group where grouped";
    GRAD_TERM_NORM = "grad/term_norm", "1", "2-norm of the gradient of the loss term named by the group; 0 when the term reaches no parameter";
    GRAD_CLIPPED = "grad/clipped", "0/1", "whether clipping scaled the gradient; the fraction of steps when averaged over an interval";
    GRAD_NON_FINITE = "grad/non_finite", "count", "updates skipped since the last record because the gradient was not finite";

    OPTIM_LEARNING_RATE = "optim/learning_rate", "1", "learning rate in effect at this step";
    OPTIM_UPDATE_RATIO = "optim/update_ratio", "1", "2-norm of the update over the 2-norm of the parameters";
    OPTIM_WEIGHT_DECAY = "optim/weight_decay", "1", "weight decay in effect at this step";
    OPTIM_UPDATES = "optim/updates", "count", "optimizer updates since the start, which accumulation and skipping make fewer than batches";

    PARAM_NORM = "param/norm", "1", "2-norm of the parameters";
    PARAM_TRAINABLE = "param/trainable", "count", "parameters that the optimizer may change at this step";

    EMA_DECAY = "ema/decay", "1", "decay of the averaged weights in effect at this step, in [0, 1]";
    EMA_INITIAL_WEIGHT = "ema/initial_weight", "1", "share of the initial weights left in the averaged ones: the product of all decays so far";
    EMA_DISTANCE = "ema/distance", "1", "2-norm of averaged minus live parameters over the 2-norm of the live ones";

    TRAIN_LOSS = "train/loss", "1", "loss on training samples, measured as the validation loss is";
    TRAIN_MEAN_PROBABILITY = "train/mean_probability", "1", "mean predicted probability over the valid pixels of the batch";
    TRAIN_POSITIVE_RATE = "train/positive_rate", "1", "fraction of the batch's valid pixels predicted positive at .5";
    TRAIN_PREVALENCE = "train/prevalence", "1", "fraction of the batch's valid pixels labelled positive";
    TRAIN_LABELLED = "train/labelled", "count", "labelled samples in the batch";
    TRAIN_UNLABELLED = "train/unlabelled", "count", "unlabelled samples in the batch";
    TRAIN_F1 = "train/f1", "1", "F1 on the training batch at .5";
    TRAIN_ACCURACY = "train/accuracy", "1", "accuracy on the training batch";
    TRAIN_AUC = "train/auc", "1", "area under the ROC curve on training samples";
    TRAIN_DICE = "train/dice", "1", "Dice on training samples";
    TRAIN_IOU = "train/iou", "1", "intersection over union on training samples";
    TRAIN_METRIC = "train/metric", "1", "the metric named by the group on training samples";
    TRAIN_MIOU = "train/miou", "1", "mean intersection over union on the training batch";

    VAL_LOSS = "val/loss", "1", "validation loss";
    VAL_F1 = "val/f1", "1", "F1 at .5; floor: the F1 of predicting everything positive";
    VAL_PRECISION = "val/precision", "1", "precision at .5; floor: the prevalence";
    VAL_RECALL = "val/recall", "1", "recall at .5; floor: the positive rate";
    VAL_IOU = "val/iou", "1", "intersection over union at .5; floor: the prevalence";
    VAL_AUC = "val/auc", "1", "area under the ROC curve; floor: .5";
    VAL_AVERAGE_PRECISION = "val/average_precision", "1", "area under the precision-recall curve; floor: the prevalence";
    VAL_BEST_F1 = "val/best_f1", "1", "highest F1 over all thresholds; floor: the F1 of predicting everything positive";
    VAL_BEST_THRESHOLD = "val/best_threshold", "1", "the threshold of the highest F1; -1 when everything must be positive";
    VAL_MEAN_PROBABILITY = "val/mean_probability", "1", "mean predicted probability over the valid pixels";
    VAL_POSITIVE_RATE = "val/positive_rate", "1", "fraction of valid pixels predicted positive at .5";
    VAL_PREVALENCE = "val/prevalence", "1", "fraction of valid pixels labelled positive";
    VAL_ACCURACY = "val/accuracy", "1", "accuracy; floor: the share of the most frequent class";
    VAL_BALANCED_ACCURACY = "val/balanced_accuracy", "1", "mean recall over classes; floor: one over the number of classes";
    VAL_MACRO_F1 = "val/macro_f1", "1", "mean F1 over classes; floor: that of always answering the most frequent class";
    VAL_MIOU = "val/miou", "1", "mean intersection over union over classes";
    VAL_DICE = "val/dice", "1", "Dice; mean over classes where there are several";
    VAL_ERROR_RATE = "val/error_rate", "1", "share of wrong decisions, lower is better";
    VAL_METRIC = "val/metric", "1", "the metric named by the group, where it has no name of its own here";
    VAL_CALIBRATION_ERROR = "val/calibration_error", "1", "expected calibration error, lower is better";
    VAL_SURFACE_DICE = "val/surface_dice", "1", "Dice of surfaces within a tolerance";
    VAL_CLDICE = "val/cldice", "1", "centre-line Dice";
    VAL_HD95 = "val/hd95", "1", "95th percentile of the distances between the surfaces, in the units of the spacing, lower is better";
    VAL_TOPOLOGY_MIX = "val/topology_mix", "1", ".30 TopoScore + .35 surface Dice + .35 VOI score";
    VAL_TOPO_SCORE = "val/topo_score", "1", "Betti-matching F1";
    VAL_VOI_SCORE = "val/voi_score", "1", "variation of information mapped to (0, 1], higher is better";
    VAL_S_MEASURE = "val/s_measure", "1", "structure measure";
    VAL_E_MEASURE = "val/e_measure", "1", "enhanced-alignment measure";
    VAL_WEIGHTED_F = "val/weighted_f", "1", "weighted F-measure";
    VAL_MAE = "val/mae", "1", "mean absolute error of the probability map, lower is better";

    TEST_LOSS = "test/loss", "1", "loss on the test set";
    TEST_METRIC = "test/metric", "1", "the metric named by the group on the test set";

    SSL_CANDIDATES = "ssl/candidates", "count", "unlabelled images considered for self-training in the batch";
    SSL_ADMITTED_IMAGES = "ssl/admitted_images", "count", "unlabelled images admitted to self-training in the batch";
    SSL_ADMITTED_PIXELS = "ssl/admitted_pixels", "count", "unlabelled pixels admitted to self-training in the batch";
    SSL_THRESHOLD = "ssl/threshold", "1", "admission threshold in effect at this step";
    SSL_SCORE = "ssl/score", "1", "mean score that is compared with the admission threshold";

    GAN_LOSS_D = "gan/loss_d", "1", "loss of the discriminator";
    GAN_LOSS_G = "gan/loss_g", "1", "adversarial loss of the segmenter, before its weight";
    GAN_D_REAL = "gan/d_real", "1", "mean output of the discriminator on real labels, in [0, 1]";
    GAN_D_FAKE = "gan/d_fake", "1", "mean output of the discriminator on predictions, in [0, 1]";

    MOE_LOAD = "moe/load", "1", "fraction of tokens sent to the expert named by the group";

    STAGE_INDEX = "stage/index", "index", "training stage";
    STAGE_FROZEN = "stage/frozen", "0/1", "whether the parameter group is frozen";

    DATA_NON_FINITE = "data/non_finite", "count", "input values that are not finite, since the last record";
    DATA_IGNORED = "data/ignored", "1", "fraction of the batch's labelled pixels whose label is ignored";
    DATA_FINGERPRINT = "data/fingerprint", "1", "a hash of the batch as an integer below 2^53, equal for equal batches";

    TIME_STEP_SECONDS = "time/step_seconds", "s", "mean wall time of a step since the last record, loading included";
    TIME_LOAD_SECONDS = "time/load_seconds", "s", "mean wall time a step waited for its batch since the last record";
    TIME_EVALUATE_SECONDS = "time/evaluate_seconds", "s", "wall time of this evaluation";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = HashSet::new();
        for signal in ALL {
            assert!(seen.insert(signal.name), "{} is declared twice", signal.name);
            let parts: Vec<&str> = signal.name.split('/').collect();
            assert_eq!(parts.len(), 2, "{} is area/quantity", signal.name);
            for part in parts {
                assert!(
                    part.starts_with(|c: char| c.is_ascii_lowercase())
                        && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
                    "{} is lower case with underscores",
                    signal.name,
                );
            }
        }
    }

    #[test]
    fn units_are_those_of_the_list() {
        for signal in ALL {
            assert!(
                ["1", "0/1", "s", "count", "index"].contains(&signal.unit),
                "{} has unit {}",
                signal.name,
                signal.unit,
            );
        }
    }

    #[test]
    fn meanings_are_one_line_without_a_full_stop() {
        for signal in ALL {
            let meaning = signal.meaning;
            assert!(!meaning.is_empty() && !meaning.contains('\n') && !meaning.ends_with('.'));
        }
    }

    #[test]
    fn areas_are_not_interrupted() {
        let area = |signal: &Signal| signal.name.split('/').next().unwrap_or_default().to_owned();
        let mut seen = HashSet::new();
        let areas: Vec<String> = ALL.iter().map(|signal| area(signal)).collect();
        for run in areas.chunk_by(|a, b| a == b) {
            assert!(seen.insert(run[0].clone()), "area {} occurs twice", run[0]);
        }
    }

    #[test]
    fn every_metric_has_a_direction() {
        for (name, expected) in [
            ("val/f1", Some(Goal::Higher)),
            ("val/dice/student", Some(Goal::Higher)),
            ("val/loss", Some(Goal::Lower)),
            ("loss/total", Some(Goal::Lower)),
            ("val/metric/wer", Some(Goal::Lower)),
            ("val/metric/ssim", Some(Goal::Higher)),
            ("val/metric/dice_loss", Some(Goal::Lower)),
            ("val/metric/loss_of_sleep_score", Some(Goal::Higher)),
            ("val/metric/unheard", None),
            ("val/best_threshold", None),
            ("optim/learning_rate", None),
            ("val/mae", Some(Goal::Lower)),
        ] {
            assert_eq!(goal(name), expected, "{name}");
        }
    }

    #[test]
    fn a_logged_name_is_traced_back_to_its_signal() {
        assert_eq!(OPTIM_LEARNING_RATE.group("head"), "optim/learning_rate/head");
        assert_eq!(of("optim/learning_rate/head"), Some(&OPTIM_LEARNING_RATE));
        assert_eq!(of("val/f1"), Some(&VAL_F1));
        assert_eq!(of("val/f1_other"), None);
        assert_eq!(of("nonsense"), None);
        assert_eq!(VAL_F1.group_of("val/f1/a/b"), Some("a/b"));
        assert_eq!(VAL_F1.group_of("val/f1"), Some(""));
        for signal in ALL {
            assert_eq!(of(signal.name), Some(*signal));
        }
    }
}
