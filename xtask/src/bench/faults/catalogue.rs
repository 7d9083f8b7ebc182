//! The faults, and the recipes they are put into.

use super::data::{Sample, Set, Which};

/// A recipe on a set, small enough to be trained a few hundred times.
pub struct Bench {
    pub name: &'static str,
    pub which: Which,
    pub kind: Kind,
    /// The recipe, but for the data's place.
    pub toml: &'static str,
}

/// The recipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    TwoStage,
    Segmentation,
    Classification,
}

/// Where a fault lies, which says what can be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Settings that make what they say happen: others would mend it.
    Settings,
    /// The program does something else than its settings say: a person must look.
    Wiring,
    /// The data: a person must look.
    Data,
    /// What was left on the disk.
    Disk,
}

/// A fault.
pub struct Fault {
    pub id: &'static str,
    pub place: Place,
    /// Causes that name it right.
    pub causes: &'static [&'static str],
    /// Words of which one says it right where settings are refused or the data or checkpoint are.
    pub words: &'static [&'static str],
    /// Settings as declared, by recipe; none where the fault does not exist there. `{weights}` stands for those of a healthy run with another seed.
    pub declared: fn(Kind) -> Option<Vec<&'static str>>,
    /// Settings that count in truth, beyond those declared.
    pub effective: fn(Kind) -> Vec<&'static str>,
    /// What happens to the data.
    pub damage: Option<fn(&mut Set)>,
    /// What happens to the newest checkpoint half-way.
    pub disk: Option<Disk>,
}

/// Damage to a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    /// The weights' file is cut in half.
    Truncated,
    /// All norms multiply by zero.
    DeadNorms,
}

pub const BENCHES: &[Bench] = &[
    Bench { name: "two-stage, generated", which: Which::Micrographs, kind: Kind::TwoStage, toml: TWO_STAGE },
    Bench {
        name: "two-stage, EMPIAR-10146",
        which: Which::Apoferritin,
        kind: Kind::TwoStage,
        toml: TWO_STAGE,
    },
    Bench {
        name: "volume-segmentation, generated",
        which: Which::Organs,
        kind: Kind::Segmentation,
        toml: SEGMENTATION,
    },
    Bench {
        name: "volume-segmentation, hippocampus",
        which: Which::Hippocampi,
        kind: Kind::Segmentation,
        toml: SEGMENTATION,
    },
    Bench {
        name: "volume-classification, generated",
        which: Which::Bodies,
        kind: Kind::Classification,
        toml: CLASSIFICATION,
    },
    Bench {
        name: "volume-classification, hippocampus ends",
        which: Which::HippocampusEnds,
        kind: Kind::Classification,
        toml: CLASSIFICATION,
    },
];

const TWO_STAGE: &str = r#"
recipe = "two-stage"
[data]
source = "folder"
images = "images"
masks = "masks"
ignore_value = 9
tile = 32
crop = 32
[evaluate]
tile = 64
overlap = 16
[model]
base = 4
[loss]
positive_weight = 1.0
[run]
loader_threads = 0
tensorboard = false
checkpoint_every = 40
[stage1]
labelled_ratio = 0.2
epochs = 4
steps_per_epoch = 15
batch = 4
unlabelled_batch = 4
learning_rate = 5e-3
decay = "constant"
rampup_epochs = 2
advance_when = ""
[stage2]
labelled_ratio = 0.9
epochs = 20
steps_per_epoch = 20
batch = 8
unlabelled_batch = 4
learning_rate = 5e-3
warmup_epochs = 1
rampup_epochs = 5
"#;

const SEGMENTATION: &str = r#"
recipe = "volume-segmentation"
[data]
source = "files"
images = "images"
labels = "labels"
classes = 3
ignore_label = [9]
validation = "file"
patch_depth = 16
patch_height = 24
patch_width = 16
pad_label = "background"
[augment]
preset = "none"
[evaluate]
every_epochs = 2
[model]
base = 6
depth = 2
affine = true
[run]
loader_threads = 0
tensorboard = false
checkpoint_every = 40
[optim]
kind = "adamw"
learning_rate = 1e-2
weight_decay = 0.01
epochs = 16
steps_per_epoch = 15
batch = 4
warmup_epochs = 1
decay = "cosine"
[ema]
decay = 0.9
"#;

const CLASSIFICATION: &str = r#"
recipe = "volume-classification"
[data]
source = "table"
table = "labels.csv"
validation = "file"
[augment]
preset = "flips"
[model]
depth = 10
width = 8
dropout = 0.1
[loss]
max_margin = 0.3
scale = 10.0
drw_start = 8
[run]
loader_threads = 0
tensorboard = false
checkpoint_every = 40
[optim]
kind = "adamw"
weight_decay = 0.01
epochs = 16
steps_per_epoch = 15
batch = 16
accumulate = 1
learning_rate = 3e-3
warmup_epochs = 1
decay = "cosine"
[optim.rate_scale]
head = 1.0
[ema]
decay = 0.9
"#;

fn none(_: Kind) -> Vec<&'static str> {
    Vec::new()
}

fn as_is(_: Kind) -> Option<Vec<&'static str>> {
    Some(Vec::new())
}

/// One override for both stages, or for the one.
fn both(kind: Kind, two: &'static [&'static str], one: &'static str) -> Option<Vec<&'static str>> {
    rate(kind, two, one, one)
}

/// The same where each recipe has a rate of its own.
fn rate(
    kind: Kind,
    two: &'static [&'static str],
    segmentation: &'static str,
    classification: &'static str,
) -> Option<Vec<&'static str>> {
    Some(match kind {
        Kind::TwoStage => two.to_vec(),
        Kind::Segmentation => vec![segmentation],
        Kind::Classification => vec![classification],
    })
}

const fn settings(
    id: &'static str,
    causes: &'static [&'static str],
    words: &'static [&'static str],
    declared: fn(Kind) -> Option<Vec<&'static str>>,
) -> Fault {
    Fault { id, place: Place::Settings, causes, words, declared, effective: none, damage: None, disk: None }
}

const fn wiring(
    id: &'static str,
    causes: &'static [&'static str],
    declared: fn(Kind) -> Option<Vec<&'static str>>,
    effective: fn(Kind) -> Vec<&'static str>,
) -> Fault {
    Fault { id, place: Place::Wiring, causes, words: &[], declared, effective, damage: None, disk: None }
}

const fn data(
    id: &'static str,
    causes: &'static [&'static str],
    words: &'static [&'static str],
    declared: fn(Kind) -> Option<Vec<&'static str>>,
    damage: fn(&mut Set),
) -> Fault {
    Fault {
        id,
        place: Place::Data,
        causes,
        words,
        declared,
        effective: none,
        damage: Some(damage),
        disk: None,
    }
}

const LOW: &[&str] = &["learning-rate-too-low"];
const HIGH: &[&str] = &["learning-rate-too-high", "training-undoes-itself"];

fn only(kind: Kind, of: Kind, overrides: &'static [&'static str]) -> Option<Vec<&'static str>> {
    (kind == of).then(|| overrides.to_vec())
}

fn segments(kind: Kind) -> Option<Vec<&'static str>> {
    (kind != Kind::Classification).then(Vec::new)
}

pub const FAULTS: &[Fault] = &[
    settings("rate x1/40", LOW, &[], |k| {
        rate(
            k,
            &["stage1.learning_rate=1.25e-4", "stage2.learning_rate=1.25e-4"],
            "optim.learning_rate=2.5e-4",
            "optim.learning_rate=7.5e-5",
        )
    }),
    settings("rate x1/400", LOW, &[], |k| {
        rate(
            k,
            &["stage1.learning_rate=1.25e-5", "stage2.learning_rate=1.25e-5"],
            "optim.learning_rate=2.5e-5",
            "optim.learning_rate=7.5e-6",
        )
    }),
    settings("rate x50", HIGH, &[], |k| {
        rate(
            k,
            &["stage1.learning_rate=0.25", "stage2.learning_rate=0.25"],
            "optim.learning_rate=0.5",
            "optim.learning_rate=0.15",
        )
    }),
    settings("rate x500", HIGH, &[], |k| {
        rate(
            k,
            &["stage1.learning_rate=2.5", "stage2.learning_rate=2.5"],
            "optim.learning_rate=5.0",
            "optim.learning_rate=1.5",
        )
    }),
    settings(
        "no warm-up at 20x the rate",
        &["learning-rate-too-high", "training-undoes-itself", "no-effective-warm-up"],
        &[],
        |k| {
            Some(match k {
                Kind::TwoStage => {
                    vec!["stage1.learning_rate=0.1", "stage2.learning_rate=0.1", "stage2.warmup_epochs=0"]
                }
                Kind::Segmentation => vec!["optim.learning_rate=0.2", "optim.warmup_epochs=0"],
                Kind::Classification => vec!["optim.learning_rate=0.06", "optim.warmup_epochs=0"],
            })
        },
    ),
    settings("rate x50 in SGD", HIGH, &[], |k| {
        (k != Kind::TwoStage).then(|| {
            vec!["optim.kind=sgd", "optim.momentum=0.9", "optim.learning_rate=30.0", "optim.clip_norm=0.0"]
        })
    }),
    wiring(
        "declared warm-up not wired",
        &["no-effective-warm-up", "configuration-not-effective"],
        |k| {
            Some(match k {
                Kind::TwoStage => vec!["stage2.warmup_epochs=5"],
                _ => vec!["optim.warmup_epochs=5"],
            })
        },
        |k| match k {
            Kind::TwoStage => vec!["stage2.warmup_epochs=0"],
            _ => vec!["optim.warmup_epochs=0"],
        },
    ),
    settings("clip 1e-3", &["gradient-bound-too-tight"], &[], |k| {
        both(k, &["stage1.clip_norm=1e-3", "stage2.clip_norm=1e-3"], "optim.clip_norm=1e-3")
    }),
    settings("clip 1e-4 in SGD", &["gradient-bound-too-tight", "learning-rate-too-low"], &[], |k| {
        (k != Kind::TwoStage).then(|| {
            vec!["optim.kind=sgd", "optim.momentum=0.9", "optim.learning_rate=0.1", "optim.clip_norm=1e-4"]
        })
    }),
    settings(
        "extreme class weight",
        &["class-weights-extreme", "rare-class-unheard", "labels-or-loss-wrong"],
        &[],
        |k| match k {
            Kind::TwoStage => Some(vec!["loss.positive_weight=1000.0", "loss.dice=0.0"]),
            Kind::Segmentation | Kind::Classification => None,
        },
    ),
    settings(
        "rare class weighs nothing",
        &["class-weights-extreme", "rare-class-unheard", "labels-or-loss-wrong"],
        &[],
        |k| match k {
            Kind::TwoStage => Some(vec!["loss.positive_weight=0.001", "loss.dice=0.0"]),
            Kind::Segmentation | Kind::Classification => None,
        },
    ),
    settings("average of .9999 without warm-up", &["averaged-weights-not-trained"], &[], |k| {
        Some(match k {
            Kind::TwoStage => vec![
                "stage1.ema_decay=0.9999",
                "stage2.ema_decay=0.9999",
                "stage1.ema_warmup=false",
                "stage2.ema_warmup=false",
            ],
            _ => vec!["ema.decay=0.9999", "ema.warmup=false"],
        })
    }),
    wiring(
        "average not updating",
        &["averaged-weights-not-trained", "configuration-not-effective"],
        as_is,
        |k| match k {
            Kind::TwoStage => vec![
                "stage1.ema_decay=0.9999999",
                "stage2.ema_decay=0.9999999",
                "stage1.ema_warmup=false",
                "stage2.ema_warmup=false",
            ],
            _ => vec!["ema.decay=0.9999999", "ema.warmup=false"],
        },
    ),
    settings("consistency x1000", &["regulariser-outweighs-labels"], &[], |k| {
        only(k, Kind::TwoStage, &["stage1.consistency_weight=100.0", "stage2.consistency_weight=100.0"])
    }),
    settings(
        "re-weighting from the first epoch",
        &["re-weighting", "class-weights-extreme", "classes-balanced-twice"],
        &[],
        |k| only(k, Kind::Classification, &["loss.drw_start=0"]),
    ),
    settings("re-weighting never", &["re-weighting"], &["would never begin"], |k| {
        only(k, Kind::Classification, &["loss.drw_start=25"])
    }),
    settings("classes balanced twice", &["classes-balanced-twice"], &["counts twice"], |k| {
        only(k, Kind::Classification, &["data.sampler=balanced"])
    }),
    wiring("frozen head", &["parameter-groups", "configuration-not-effective"], as_is, |k| match k {
        Kind::TwoStage => vec!["stage1.encoder_rate_scale=0.0", "stage2.encoder_rate_scale=0.0"],
        _ => vec!["optim.rate_scale.head=0.0"],
    }),
    wiring(
        "declared group rate lost",
        &["parameter-groups", "configuration-not-effective"],
        |k| {
            Some(match k {
                Kind::TwoStage => vec!["stage1.encoder_rate_scale=0.1", "stage2.encoder_rate_scale=0.1"],
                _ => vec!["optim.rate_scale.head=10.0"],
            })
        },
        |k| match k {
            Kind::TwoStage => vec!["stage1.encoder_rate_scale=1.0", "stage2.encoder_rate_scale=1.0"],
            _ => vec!["optim.rate_scale.head=1.0"],
        },
    ),
    settings("same rate for pretrained backbone and head", &["parameter-groups"], &[], |k| {
        // The head's factor is 1 in the bench's recipe.
        only(k, Kind::Classification, &["model.pretrained={weights}"])
    }),
    settings("inert loss term", &["configuration-not-effective"], &[], |k| match k {
        Kind::TwoStage => Some(vec!["loss.focal_gamma=20.0"]),
        Kind::Segmentation => Some(vec!["loss.dice.weight=1e-6"]),
        Kind::Classification => None,
    }),
    settings("weight decay of 10", &["weights-decayed-away", "regulariser-outweighs-labels"], &[], |k| {
        both(k, &["stage1.weight_decay=30.0", "stage2.weight_decay=30.0"], "optim.weight_decay=30.0")
    }),
    settings("nearly all features dropped", &["units-dead", "regulariser-outweighs-labels"], &[], |k| {
        only(k, Kind::Classification, &["model.dropout=0.99"])
    }),
    settings("teacher sees noise", &["regulariser-outweighs-labels"], &[], |k| {
        only(
            k,
            Kind::TwoStage,
            &["mean_teacher.noise=50.0", "stage1.consistency_weight=30.0", "stage2.consistency_weight=30.0"],
        )
    }),
    settings(
        "stage that never starts",
        &["schedule-does-not-fit", "configuration-not-effective"],
        &["never", "cannot be reached", "no validation"],
        |k| match k {
            Kind::TwoStage => Some(vec!["stage1.advance_when=val/f1 > 1.5"]),
            Kind::Segmentation => Some(vec![
                "loss.boundary.weight=0.5",
                "loss.boundary.kind=distance",
                "loss.boundary.from_epoch=40",
            ]),
            Kind::Classification => None,
        },
    ),
    settings("schedule longer than the run", &["schedule-does-not-fit"], &["more than"], |k| match k {
        Kind::TwoStage => Some(vec!["stage2.rampup_epochs=60"]),
        _ => Some(vec!["optim.warmup_epochs=60"]),
    }),
    data("labels out of range", &["labels-or-loss-wrong"], &["label", "mask", "class"], segments, |set| {
        for sample in &mut set.train {
            sample.labels.iter_mut().filter(|l| **l == 1).for_each(|l| *l = 7);
        }
    }),
    data("labels of other samples", &["labels-or-loss-wrong"], &[], as_is, |set| {
        let labels: Vec<(Vec<u8>, usize)> = set.train.iter().map(|s| (s.labels.clone(), s.class)).collect();
        let n = labels.len();
        for (i, sample) in set.train.iter_mut().enumerate() {
            // Far from each other, so that classes of neighbours in the table do not fit either.
            let (other, class) = &labels[(i * 7 + n / 3) % n];
            sample.class = *class;
            if !other.is_empty() {
                sample.labels = sample
                    .labels
                    .iter()
                    .enumerate()
                    .map(|(k, _)| other[(k * 31 + 7) % other.len()])
                    .collect();
            }
        }
    }),
    data(
        "ignored label taken as foreground",
        &["labels-or-loss-wrong"],
        &["ignore", "label"],
        segments,
        |set| {
            // What a person left out lies all around; here it is written as foreground.
            for sample in &mut set.train {
                let n = sample.labels.len();
                sample.labels.iter_mut().take(n / 2).for_each(|l| *l = 1);
            }
        },
    ),
    data("most pixels ignored", &["labels-or-loss-wrong"], &["ignore"], segments, |set| {
        for sample in &mut set.train {
            let n = sample.labels.len();
            sample.labels.iter_mut().take(n * 19 / 20).for_each(|l| *l = 9);
        }
    }),
    data(
        "half of the masks empty",
        &["labels-or-loss-wrong"],
        &["no positive", "empty", "foreground"],
        segments,
        |set| {
            for sample in set.train.iter_mut().step_by(2) {
                sample.labels.fill(0);
            }
        },
    ),
    data(
        "every sample the same",
        &["input-pipeline", "split-leaks"],
        &["same", "identical", "duplicate", "repeat"],
        as_is,
        |set| {
            // One of each class, so that there is something to tell apart.
            let first = |class: usize, set: &Set| set.train.iter().find(|s| s.class == class).cloned();
            let (zero, one) = (first(0, set), first(1, set));
            for sample in &mut set.train {
                let same = if sample.class == 1 { &one } else { &zero };
                if let Some(same) = same {
                    *sample = Sample { class: sample.class, ..same.clone() };
                }
            }
        },
    ),
    data("training is validation", &["split-leaks"], &["both", "same", "identical", "share"], as_is, |set| {
        let n = set.validation.len();
        let from: Vec<Sample> = set.train.iter().take(n).cloned().collect();
        set.validation = from;
        if set.validation.iter().all(|s| s.class == 0)
            && let Some(one) = set.train.iter().find(|s| s.class == 1)
        {
            set.validation[0] = one.clone();
        }
    }),
    data("NaN in one image", &["numbers-overflow"], &["NaN", "finite"], as_is, |set| {
        set.train[1].image[5] = f32::NAN;
    }),
    data(
        "half of an image missing",
        &["input-pipeline", "labels-or-loss-wrong"],
        &["constant", "zero", "flat", "shape", "size"],
        |k| only(k, Kind::TwoStage, &[]),
        |set| {
            for sample in &mut set.train {
                let n = sample.image.len();
                sample.image.iter_mut().take(n / 2).for_each(|v| *v = 0.0);
            }
        },
    ),
    data(
        "images are constant",
        &["input-pipeline", "labels-or-loss-wrong"],
        &["constant", "one value", "flat", "same"],
        as_is,
        |set| {
            set.train.iter_mut().for_each(|sample| sample.image.fill(100.0));
        },
    ),
    Fault {
        id: "corrupted checkpoint",
        place: Place::Disk,
        causes: &["damaged-checkpoint"],
        words: &[],
        declared: as_is,
        effective: none,
        damage: None,
        disk: Some(Disk::Truncated),
    },
    Fault {
        id: "dead normalisation",
        place: Place::Disk,
        causes: &["damaged-checkpoint", "units-dead", "wrong-weights"],
        words: &[],
        declared: as_is,
        effective: none,
        damage: None,
        disk: Some(Disk::DeadNorms),
    },
];
