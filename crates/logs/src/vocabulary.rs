//! From the names of other frameworks to ours.
//!
//! A logged name is read as lower-case words, in this order:
//!
//! 1. the *split* (`train`, `val`, `test` and their like), wherever it stands;
//! 2. the *quantity*: a learning rate, a norm, a time, a loss, or the longest known phrase of a metric (`mean io u`);
//! 3. what is left is the *group*: a class, a head, student or teacher.
//!
//! A wrong signal makes false alarms and a missing one none, so a name with words like `num`, `best`, `scale` or `threshold` is
//! left alone, and so is everything unknown. `docs/log-names.md` has the rules with examples.

mod declared;
mod metrics;
mod words;

use std::collections::HashSet;

use trimtab_signals::names;

pub use declared::declare;
use metrics::{METRICS, Metric};
use words::Word;

/// Whose samples a value is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    Train,
    Validation,
    Test,
}

/// How often a value is logged, where the name says so. In order of preference for the training loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pace {
    Step,
    Unsaid,
    Epoch,
}

/// What a name says by itself.
#[derive(Clone, Debug, PartialEq)]
enum Quantity {
    Unknown,
    /// Already one of our signals.
    Own,
    /// A signal that does not depend on the other names.
    Signal(String),
    Loss,
    /// A loss of a discriminator or against one; `sure` unless the name can mean something else.
    Adversarial {
        discriminator: bool,
        sure: bool,
    },
    Metric(&'static Metric),
    /// `weights` and nothing else: of the consistency term in logs of mean teachers.
    Weights,
}

#[derive(Clone, Debug)]
struct Reading {
    split: Option<Split>,
    pace: Pace,
    quantity: Quantity,
    /// The words of the group.
    group: Vec<String>,
    /// The words of quantity and group, in their order.
    said: Vec<String>,
    /// Whether it is called a total.
    total: bool,
}

/// A signal for a name, and a second choice where another name has a better claim.
#[derive(Debug)]
struct Claim {
    signal: String,
    second: Option<String>,
}

impl Claim {
    fn only(signal: impl Into<String>) -> Option<Self> {
        Some(Self { signal: signal.into(), second: None })
    }
}

/// The signal of each logged name, seen together: whether a bare `accuracy` is of training depends on whether there is a
/// `val_accuracy`. No two names get one signal; a name that is one of our signals keeps it.
///
/// Where nothing is of validation, what is of the test set is taken for it, as many small programs validate on the test set; not in
/// a log with our own `loss/total`, which would say `val/`.
pub fn map(logged: &[&str]) -> Vec<Option<String>> {
    map_beside(logged, false).0
}

/// As [`map`], beside other names that the reader knows, which may be of validation; and whether the test set is taken for it.
pub(crate) fn map_beside(logged: &[&str], validated: bool) -> (Vec<Option<String>>, bool) {
    let mut readings: Vec<Reading> = logged.iter().map(|name| read(name)).collect();
    keep_own_training_losses(logged, &mut readings);
    read_translation_gan(logged, &mut readings);
    promote_only_losses(&mut readings);

    let mapped = assign(logged, &readings);
    let has = |area: &str| mapped.iter().flatten().any(|signal| signal.starts_with(area));
    if validated || has("val/") || !has("test/") || logged.contains(&names::LOSS_TOTAL.name) {
        return (mapped, false);
    }
    for (name, reading) in logged.iter().zip(&mut readings) {
        if reading.split == Some(Split::Test) {
            reading.split = Some(Split::Validation);
        }
        if reading.quantity == Quantity::Own
            && let Some(rest) = name.strip_prefix("test/")
        {
            reading.quantity = Quantity::Signal(format!("val/{rest}"));
        }
    }
    (assign(logged, &readings), true)
}

/// The signal of each name, by what the names say.
fn assign(logged: &[&str], readings: &[Reading]) -> Vec<Option<String>> {
    let context = Context::of(logged, readings);
    let mut claims: Vec<Option<Claim>> =
        logged.iter().zip(readings).map(|(name, reading)| claim(name, reading, &context)).collect();
    claim_training_losses(logged, readings, &mut claims);

    // Own names first, then those that are not of a single step, then the shorter name, then the earlier one.
    let mut order: Vec<usize> = (0..logged.len()).collect();
    order.sort_by_key(|&at| {
        let reading = &readings[at];
        let step = reading.pace == Pace::Step && reading.quantity != Quantity::Loss;
        (reading.quantity != Quantity::Own, step, reading.said.len(), logged[at].len())
    });
    let mut taken = HashSet::new();
    let mut mapped = vec![None; logged.len()];
    for at in order {
        let Some(claim) = claims[at].take() else { continue };
        if taken.insert(claim.signal.clone()) {
            mapped[at] = Some(claim.signal);
        } else if let Some(second) = claim.second
            && taken.insert(second.clone())
        {
            mapped[at] = Some(second);
        }
    }
    mapped
}

// ---------------------------------------------------------------- one name by itself

/// Words of a split; `eval` gives way to the others (`eval_test_loss`).
fn split_of(word: &str) -> Option<Split> {
    match word {
        "train" | "training" | "tr" | "trn" => Some(Split::Train),
        "val" | "valid" | "validation" | "vali" | "dev" => Some(Split::Validation),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

fn is_evaluation(word: &str) -> bool {
    ["eval", "evaluation", "evaluate"].contains(&word)
}

/// Whether a word is in one of a list's lines.
fn listed(lines: &[&str], word: &str) -> bool {
    lines.iter().any(|line| line.split(' ').any(|known| known == word))
}

/// Words without a meaning for which signal it is.
const NOISE: [&str; 3] = [
    "value values score scores metric metrics mean avg average overall epoch step iter iteration",
    "batch minibatch running log logs updated current global per scalar scalars charts results",
    "result stats summary set on of the all performance",
];

/// With one of these in the group a value is not the quantity but something about it.
const ABOUT: [&str; 6] = [
    "num n nb count counts number size length len examples samples images anchors tokens flos flops",
    "throughput speed fps memory mem gpu cpu ram best max min lowest highest previous prev last",
    "final std stddev var variance median scale scaler scaling factor mult multiplier ratio",
    "threshold thr thresh patience target delta diff difference gap improvement improved counter",
    "seed id version temperature hist histogram bias coef coeff coefficient ci upper lower bound",
    "baseline smoothed smooth slope trend change steps iters epochs batches vs clipped",
];

const DISCRIMINATOR: [&str; 5] = ["disc", "discriminator", "dis", "discr", "critic"];
const GENERATOR: [&str; 2] = ["gen", "generator"];
const AGAINST: [&str; 3] = ["adv", "adversarial", "gan"];

fn read(name: &str) -> Reading {
    let mut reading = Reading {
        split: None,
        pace: Pace::Unsaid,
        quantity: Quantity::Unknown,
        group: Vec::new(),
        said: Vec::new(),
        total: false,
    };
    let words = words::split(name);
    // `train/loss` is the one own name that others use for something else.
    if names::of(name).is_some_and(|signal| signal != &names::TRAIN_LOSS) {
        reading.quantity = Quantity::Own;
        return reading;
    }
    let split_word = |word: &Word| if word.label { None } else { split_of(&word.text) };
    let evaluation = words.iter().any(|word| !word.label && is_evaluation(&word.text));
    // Behind `val` and `test` everything is of that split, even the class of trains.
    let section = words.first().and_then(split_word);
    let section = section.filter(|&split| split != Split::Train);
    reading.split = section.or_else(|| words.iter().rev().find_map(split_word)).or(if evaluation {
        Some(Split::Validation)
    } else {
        None
    });
    let says_split = |word: &Word| match (split_word(word), section) {
        (None, _) => !word.label && is_evaluation(&word.text),
        (Some(split), Some(section)) => split == section,
        (Some(_), None) => true,
    };
    let said: Vec<Word> = words.into_iter().filter(|word| !says_split(word)).collect();
    let has = |list: &[&str]| said.iter().any(|word| list.contains(&word.text.as_str()));
    if has(&["step", "iter", "iteration", "batch", "minibatch", "logs"]) {
        reading.pace = Pace::Step;
    } else if has(&["epoch"]) {
        reading.pace = Pace::Epoch;
    }

    if said.iter().any(|word| !word.label && listed(&TIMING, &word.text)) {
        if let Some(signal) = timing(&said, evaluation || reading.split == Some(Split::Validation)) {
            reading.quantity = Quantity::Signal(signal);
        }
        return reading;
    }
    if let Some(signal) = state_of_the_optimizer(&said) {
        reading.quantity = signal.map_or(Quantity::Unknown, Quantity::Signal);
        return reading;
    }
    if let Some(signal) = discriminator_output(&said) {
        reading.quantity = Quantity::Signal(signal);
        return reading;
    }
    if let [Word { text, .. }] = said.as_slice()
        && ["weight", "weights"].contains(&text.as_str())
        && reading.split.is_none()
    {
        reading.quantity = Quantity::Weights;
        return reading;
    }
    // `errD` is what the examples of the time called the loss of D.
    let loss = has(&["loss", "losses"])
        || matches!(said.as_slice(), [first, second, ..] if first.text == "err" && second.capital);
    if loss {
        read_loss(&said, &mut reading);
    } else {
        read_metric(&said, &mut reading);
    }
    reading
}

const TIMING: [&str; 2] = [
    "time times seconds second secs sec ms runtime duration eta timestamp timestamps elapsed hours",
    "minutes",
];

/// What is timed, where it is one of three things in seconds.
fn timing(said: &[Word], evaluation: bool) -> Option<String> {
    let has = |list: &[&str]| said.iter().any(|word| list.contains(&word.text.as_str()));
    let seconds = has(&["time", "seconds", "sec", "secs", "runtime"]);
    let rate = said.windows(2).any(|pair| pair[0].text == "per" && listed(&TIMING, pair[1].text.as_str()));
    let other = has(&[
        "ms",
        "eta",
        "elapsed",
        "accumulated",
        "total",
        "epoch",
        "start",
        "end",
        "max",
        "min",
        "timestamp",
        "gpu",
        "cpu",
    ]);
    if !seconds || rate || other {
        return None;
    }
    if has(&["data", "load", "loading", "loader", "dataloader"]) {
        return Some(names::TIME_LOAD_SECONDS.name.to_owned());
    }
    if has(&["step", "iter", "iteration", "batch"]) {
        return (!evaluation).then(|| names::TIME_STEP_SECONDS.name.to_owned());
    }
    evaluation.then(|| names::TIME_EVALUATE_SECONDS.name.to_owned())
}

/// Learning rates, norms and weights: `Some(None)` for a name that is about one of them without being one.
fn state_of_the_optimizer(said: &[Word]) -> Option<Option<String>> {
    let texts: Vec<&str> = said.iter().map(|word| word.text.as_str()).collect();
    let has = |list: &[&str]| texts.iter().any(|text| list.contains(text));
    let at = |phrase: &[&str]| texts.windows(phrase.len()).any(|window| window == phrase);
    let group = |known: &[&str]| -> Vec<&str> {
        texts.iter().copied().filter(|text| !known.contains(text) && !listed(&NOISE, text)).collect()
    };
    let about = |rest: &[&str]| rest.iter().any(|word| listed(&ABOUT, word));
    let signal = |signal: &names::Signal, rest: &[&str]| {
        Some(Some(if rest.is_empty() { signal.name.to_owned() } else { signal.group(&rest.join("_")) }))
    };
    let losses = has(&["loss", "losses"]);

    if has(&["lr", "lrs"]) || at(&["learning", "rate"]) {
        const KNOWN: [&str; 24] = [
            "lr",
            "lrs",
            "learning",
            "rate",
            "optimizer",
            "optim",
            "opt",
            "adam",
            "adamw",
            "sgd",
            "rmsprop",
            "adagrad",
            "adafactor",
            "nadam",
            "radam",
            "lion",
            "lamb",
            "scheduler",
            "schedule",
            "param",
            "params",
            "group",
            "groups",
            "network",
        ];
        let rest = group(&KNOWN);
        if losses || about(&rest) || has(&["momentum", "decay", "warmup", "initial", "init", "weight"]) {
            return Some(None);
        }
        return signal(&names::OPTIM_LEARNING_RATE, &rest);
    }
    if at(&["weight", "decay"]) || texts == ["wd"] {
        let rest = group(&["weight", "decay", "wd", "optimizer", "optim"]);
        return if losses || about(&rest) { Some(None) } else { signal(&names::OPTIM_WEIGHT_DECAY, &rest) };
    }
    if texts == ["ema", "decay"] {
        return signal(&names::EMA_DECAY, &[]);
    }
    let gradient = has(&["grad", "grads", "gradient", "gradients"]);
    if (gradient && has(&["norm", "norms"])) || has(&["gnorm", "gradnorm"]) {
        const KNOWN: [&str; 14] = [
            "grad",
            "grads",
            "gradient",
            "gradients",
            "norm",
            "norms",
            "gnorm",
            "gradnorm",
            "total",
            "l2",
            "before",
            "clip",
            "clipping",
            "preclip",
        ];
        // Lightning has the exponent before the norm: `grad_2.0_norm_total`.
        let exponent = texts.iter().position(|&text| text == "norm").unwrap_or(0);
        let is_exponent =
            |place: usize, text: &str| place < exponent && text.bytes().all(|b| b.is_ascii_digit());
        let known = |text: &str| KNOWN.contains(&text) || listed(&NOISE, text);
        let rest: Vec<&str> = texts
            .iter()
            .enumerate()
            .filter(|&(place, text)| !known(text) && !is_exponent(place, text))
            .map(|(_, &text)| text)
            .collect();
        let after = has(&["after"]) || (has(&["clip", "clipping"]) && !has(&["before"]));
        return if losses || after || about(&rest) { Some(None) } else { signal(&names::GRAD_NORM, &rest) };
    }
    if has(&["norm"]) && has(&["param", "params", "parameter", "parameters", "weight", "weights"]) && !losses
    {
        const KNOWN: [&str; 9] =
            ["param", "params", "parameter", "parameters", "weight", "weights", "norm", "total", "l2"];
        // A single layer's norm is not the norm of the parameters.
        return if group(&KNOWN).is_empty() { signal(&names::PARAM_NORM, &[]) } else { Some(None) };
    }
    if has(&["weight", "weights", "lambda", "rampup", "coef", "coefficient"]) {
        let rest =
            group(&["weight", "weights", "lambda", "rampup", "coef", "coefficient", "loss", "losses", "w"]);
        if rest == ["consistency"] || rest == ["cons"] {
            return signal(&names::WEIGHT_CONSISTENCY, &[]);
        }
        if losses && !rest.is_empty() && !about(&rest) && has(&["weight", "weights"]) {
            return signal(&names::WEIGHT_LOSS, &rest);
        }
        // The weighted cross-entropy (`loss_weighted`) is another word; a dice coefficient is a metric.
        return if losses { Some(None) } else { None };
    }
    None
}

/// `D(x)`, `D(G(z))`, `d_real_prob`: what the discriminator says of real and of generated samples.
fn discriminator_output(said: &[Word]) -> Option<String> {
    let texts: Vec<&str> = said.iter().map(|word| word.text.as_str()).collect();
    let has = |list: &[&str]| texts.iter().any(|text| list.contains(text));
    match texts.as_slice() {
        ["d", "x"] => return Some(names::GAN_D_REAL.name.to_owned()),
        ["d", "g", latent, rest @ ..] if ["z", "z1", "z2", "x"].contains(latent) && said[0].capital => {
            // The second value of the pair is the one after the generator's update.
            return Some(match rest {
                _ if *latent == "z2" || *rest == ["2"] => names::GAN_D_FAKE.group("after"),
                [] | ["1"] => names::GAN_D_FAKE.name.to_owned(),
                _ => return None,
            });
        }
        ["real", "score"] => return Some(names::GAN_D_REAL.name.to_owned()),
        ["fake", "score"] => return Some(names::GAN_D_FAKE.name.to_owned()),
        _ => {}
    }
    let judged = has(&["prob", "probs", "probability", "score", "pred", "prediction", "output"]);
    let judge = has(&DISCRIMINATOR) || has(&["d"]);
    // Nothing else may be in the name: `D_real_prob_std` is something about it.
    let known = texts.iter().all(|text| {
        [
            "d",
            "real",
            "fake",
            "prob",
            "probs",
            "probability",
            "score",
            "pred",
            "prediction",
            "output",
            "mean",
            "avg",
        ]
        .contains(text)
            || DISCRIMINATOR.contains(text)
    });
    match (judged && judge && known, has(&["real"]), has(&["fake"])) {
        (true, true, false) => Some(names::GAN_D_REAL.name.to_owned()),
        (true, false, true) => Some(names::GAN_D_FAKE.name.to_owned()),
        _ => None,
    }
}

fn read_loss(said: &[Word], reading: &mut Reading) {
    // The loss of a value function, unlike `loss_value`.
    let of_values = |at: usize| {
        said[at].text == "value"
            && said.get(at + 1).is_some_and(|next| ["loss", "losses"].contains(&next.text.as_str()))
    };
    let said: Vec<&Word> = said
        .iter()
        .enumerate()
        .filter(|&(at, word)| word.label || of_values(at) || !listed(&NOISE, &word.text))
        .map(|(_, word)| word)
        .collect();
    reading.total = said.iter().any(|word| ["total", "sum", "combined"].contains(&word.text.as_str()));
    reading.said = said.iter().map(|word| word.text.clone()).collect();
    let rest: Vec<&Word> = said
        .into_iter()
        .filter(|word| !["loss", "losses", "err", "total", "sum", "combined"].contains(&word.text.as_str()))
        .collect();
    if rest.iter().any(|word| !word.label && listed(&ABOUT, &word.text)) {
        return;
    }
    let is =
        |word: &Word, letter: &str, list: &[&str]| word.text == letter || list.contains(&word.text.as_str());
    let judge = rest.iter().find(|word| is(word, "d", &DISCRIMINATOR));
    let maker = rest.iter().find(|word| is(word, "g", &GENERATOR));
    let against = rest.iter().any(|word| AGAINST.contains(&word.text.as_str()));
    // A critic is also the value function beside an actor.
    let sure = |word: &Word| word.capital || (word.text.len() > 1 && word.text != "critic");
    let others = |list: &[&str]| -> Vec<String> {
        let known = |text: &str| list.contains(&text) || AGAINST.contains(&text);
        rest.iter().filter(|word| !known(&word.text)).map(|word| word.text.clone()).collect()
    };
    reading.quantity = Quantity::Loss;
    reading.group = rest.iter().map(|word| word.text.clone()).collect();
    if let Some(word) = judge {
        reading.quantity = Quantity::Adversarial { discriminator: true, sure: sure(word) };
        reading.group = others(&["d", "disc", "discriminator", "dis", "discr", "critic"]);
    } else if maker.is_some() || against {
        let group = others(&["g", "gen", "generator"]);
        // `G_L1_loss` is another term of the generator's loss.
        let adversarial = group.iter().all(|text| text.len() == 1 || text == "fake");
        if adversarial {
            reading.quantity =
                Quantity::Adversarial { discriminator: false, sure: maker.is_some_and(|word| sure(word)) };
            reading.group = group;
        }
    }
}

fn read_metric(said: &[Word], reading: &mut Reading) {
    let texts: Vec<&str> = said.iter().map(|word| word.text.as_str()).collect();
    let mut best: Option<(usize, usize, &'static Metric)> = None;
    for metric in METRICS {
        let phrase: Vec<&str> = metric.phrase.split(' ').collect();
        for (at, window) in texts.windows(phrase.len()).enumerate() {
            if window == phrase && best.is_none_or(|(known, length, _)| (phrase.len(), at) > (length, known))
            {
                best = Some((at, phrase.len(), metric));
            }
        }
    }
    let Some((start, length, metric)) = best else { return };
    // The same quantity said twice: `Accuracy/val_accuracy`.
    let again = |text: &str| {
        METRICS.iter().any(|other| {
            other.phrase == text
                && (other.phrase == metric.phrase
                    || (!metric.quantity.is_empty() && other.quantity == metric.quantity))
        })
    };
    let is_about = |text: &str| {
        let more = ["d", "grad", "gradient", "total", "sum", "weight", "weights", "time", "heat", "rate"];
        listed(&ABOUT, text) || DISCRIMINATOR.contains(&text) || more.contains(&text)
    };
    let mut about = false;
    for (at, word) in said.iter().enumerate() {
        let phrase = (start..start + length).contains(&at);
        if !phrase && !word.label && (listed(&NOISE, texts[at]) || again(texts[at])) {
            continue;
        }
        reading.said.push(word.text.clone());
        if !phrase {
            about |= !word.label && is_about(texts[at]);
            reading.group.push(word.text.clone());
        }
    }
    // nnU-Net's `ema_fg_dice` is a running mean over epochs, not of the averaged weights.
    let running_mean = reading.group.contains(&"ema".to_owned()) && metric.phrase.ends_with(" dice");
    if !about && !running_mean {
        reading.quantity = Quantity::Metric(metric);
    }
}

// ---------------------------------------------------------------- the names together

/// Losses that alone can be all that is minimised.
const CRITERIA: [&str; 2] = [
    "ce cross entropy xent bce logits with ctc nll mse mae l1 l2 huber focal dice seg cls lm mlm",
    "main criterion tversky",
];

fn is_criterion(reading: &Reading) -> bool {
    !reading.group.is_empty() && reading.group.iter().all(|word| listed(&CRITERIA, word.as_str()))
}

/// `train/loss` is ours where there is also a `loss/total`, as in our own runs.
fn keep_own_training_losses(logged: &[&str], readings: &mut [Reading]) {
    if logged.contains(&names::LOSS_TOTAL.name) {
        for (name, reading) in logged.iter().zip(readings) {
            if names::TRAIN_LOSS.group_of(name).is_some() {
                reading.quantity = Quantity::Own;
            }
        }
    }
}

/// The losses of pix2pix and CycleGAN have names without `loss`: `G_GAN`, `D_real`, `cycle_A`.
fn read_translation_gan(logged: &[&str], readings: &mut [Reading]) {
    if !logged.iter().any(|name| ["G_GAN", "G_L1", "cycle_A", "cycle_B"].contains(name)) {
        return;
    }
    for (name, reading) in logged.iter().zip(readings) {
        let said: Vec<String> = words::split(name).into_iter().map(|word| word.text).collect();
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        let group = |signal: &names::Signal, group: &[&str]| {
            Quantity::Signal(if group.is_empty() {
                signal.name.to_owned()
            } else {
                signal.group(&group.join("_"))
            })
        };
        reading.quantity = match said.as_slice() {
            ["g", "gan"] => group(&names::GAN_LOSS_G, &[]),
            ["g", "gan", rest @ ..] => group(&names::GAN_LOSS_G, rest),
            ["g", side @ ("a" | "b")] => group(&names::GAN_LOSS_G, &[side]),
            ["d", rest @ ..] => group(&names::GAN_LOSS_D, rest),
            ["g" | "cycle" | "idt", ..] => group(&names::LOSS_TERM, &said),
            _ => continue,
        };
    }
}

/// The only loss of a split is that split's loss, whatever its kind: `validation/ctc_loss`.
fn promote_only_losses(readings: &mut [Reading]) {
    for split in [Some(Split::Train), Some(Split::Validation), Some(Split::Test), None] {
        let of_split = |reading: &Reading| {
            // Without a split it is of training, so a loss of training makes it a term.
            (reading.split == split || (split.is_none() && reading.split == Some(Split::Train)))
                && matches!(reading.quantity, Quantity::Loss | Quantity::Adversarial { .. })
        };
        let own = readings.iter().any(|reading| reading.quantity == Quantity::Own);
        let mut losses = readings.iter_mut().filter(|reading| of_split(reading));
        if let (Some(only), None) = (losses.next(), losses.next())
            && only.quantity == Quantity::Loss
            && !own
            && is_criterion(only)
        {
            only.group.clear();
        }
    }
}

/// What is known about the names together.
struct Context {
    /// Metrics with a split: quantity (or phrase) and group.
    with_split: HashSet<(bool, &'static str, Vec<String>)>,
    /// Names with a split of training, of validation.
    says_training: bool,
    says_validation: bool,
    /// A mean over classes that is surely of validation.
    evaluates_classes: bool,
    discriminator: bool,
    generator: bool,
    unsupervised: bool,
    /// A `loss_x` beside a `loss_u` or `loss_s`, as methods after FixMatch name labelled and unlabelled samples.
    fixmatch: bool,
}

fn kind(metric: &'static Metric) -> &'static str {
    if metric.quantity.is_empty() { metric.phrase } else { metric.quantity }
}

impl Context {
    fn of(logged: &[&str], readings: &[Reading]) -> Self {
        let mut with_split = HashSet::new();
        let mut evaluates_classes = false;
        for reading in readings {
            let Quantity::Metric(metric) = reading.quantity else { continue };
            match reading.split {
                Some(split @ (Split::Train | Split::Validation)) => {
                    with_split.insert((split == Split::Train, kind(metric), reading.group.clone()));
                }
                Some(Split::Test) => {}
                None => evaluates_classes |= metric.evaluation && ["miou", "dice"].contains(&metric.quantity),
            }
        }
        let says = |split| {
            readings.iter().any(|reading| {
                reading.split == Some(split)
                    && matches!(reading.quantity, Quantity::Loss | Quantity::Metric(_))
            })
        };
        let adversarial = |wanted: bool| {
            readings.iter().any(
                |reading| matches!(reading.quantity, Quantity::Adversarial { discriminator, .. } if discriminator == wanted),
            )
        };
        let output = readings.iter().any(
            |reading| matches!(&reading.quantity, Quantity::Signal(signal) if signal.starts_with("gan/d_")),
        );
        let term = |words: &[&str]| {
            readings.iter().any(|reading| {
                reading.quantity == Quantity::Loss && words.iter().any(|word| reading.group == [*word])
            })
        };
        Self {
            with_split,
            says_training: says(Split::Train),
            says_validation: says(Split::Validation)
                || logged.iter().any(|name| name.starts_with("val/"))
                || readings.iter().any(
                    |reading| matches!(&reading.quantity, Quantity::Signal(signal) if signal.starts_with("val/")),
                ),
            evaluates_classes,
            discriminator: adversarial(true) || output,
            generator: adversarial(false) || output,
            unsupervised: term(&["unsup", "unsupervised", "consistency", "cons"]),
            fixmatch: term(&["x"]) && term(&["u", "s"]),
        }
    }

    /// Of what a metric is whose name does not say it.
    fn split_of(&self, metric: &'static Metric, group: &[String]) -> Split {
        let has = |training: bool| self.with_split.contains(&(training, kind(metric), group.to_vec()));
        let class = ["iou", "dice"].contains(&metric.quantity) && self.evaluates_classes;
        if has(false) {
            Split::Train
        } else if has(true) || metric.evaluation || class || (self.says_training && self.says_validation) {
            // Where the losses say their split, an `iou` that does not is the one of the evaluation.
            Split::Validation
        } else {
            Split::Train
        }
    }
}

fn claim(name: &str, reading: &Reading, context: &Context) -> Option<Claim> {
    match &reading.quantity {
        Quantity::Unknown => None,
        Quantity::Own => Claim::only(name),
        Quantity::Signal(signal) => Claim::only(signal.clone()),
        Quantity::Weights => {
            context.unsupervised.then(|| Claim::only(names::WEIGHT_CONSISTENCY.name)).flatten()
        }
        Quantity::Metric(metric) => {
            let split = reading.split.unwrap_or_else(|| context.split_of(metric, &reading.group));
            Some(claim_metric(reading, metric, split))
        }
        Quantity::Adversarial { discriminator, sure } if !evaluated(reading) => {
            let partner = if *discriminator { context.generator } else { context.discriminator };
            if !sure && !partner {
                let critic = reading.group.is_empty() && reading.said.iter().any(|word| word == "critic");
                let named = if critic { "critic".to_owned() } else { reading.said.join("_") };
                return Claim::only(names::LOSS_TERM.group(&named));
            }
            let signal = if *discriminator { names::GAN_LOSS_D } else { names::GAN_LOSS_G };
            Claim::only(grouped(signal.name, &reading.group))
        }
        Quantity::Loss if !evaluated(reading) => claim_term(reading, context),
        Quantity::Loss | Quantity::Adversarial { .. } => Some(claim_evaluated_loss(reading)),
    }
}

fn evaluated(reading: &Reading) -> bool {
    matches!(reading.split, Some(Split::Validation | Split::Test))
}

fn grouped(signal: &str, group: &[String]) -> String {
    if group.is_empty() { signal.to_owned() } else { format!("{signal}/{}", group.join("_")) }
}

fn claim_metric(reading: &Reading, metric: &'static Metric, split: Split) -> Claim {
    let (area, other) = match split {
        Split::Train => ("train", names::TRAIN_METRIC),
        Split::Validation => ("val", names::VAL_METRIC),
        Split::Test => ("test", names::TEST_METRIC),
    };
    let own = format!("{area}/{}", metric.quantity);
    let said = other.group(&reading.said.join("_"));
    if !metric.quantity.is_empty() && names::ALL.iter().any(|signal| signal.name == own) {
        // A metric logged twice is still one. The value of a step is only a worse version of the epoch's.
        let second = (reading.pace != Pace::Step).then_some(said);
        return Claim { signal: grouped(&own, &reading.group), second };
    }
    let signal = if metric.quantity.is_empty() {
        said
    } else {
        let mut words = reading.group.clone();
        words.push(metric.quantity.to_owned());
        other.group(&words.join("_"))
    };
    Claim { signal, second: None }
}

/// A loss on samples of validation or test.
fn claim_evaluated_loss(reading: &Reading) -> Claim {
    let (plain, other) = match reading.split {
        Some(Split::Test) => (names::TEST_LOSS, names::TEST_METRIC),
        _ => (names::VAL_LOSS, names::VAL_METRIC),
    };
    // `loss` last, as its last word tells which way a metric is better.
    let mut words: Vec<String> =
        reading.said.iter().filter(|word| !["loss", "losses"].contains(&word.as_str())).cloned().collect();
    words.push("loss".to_owned());
    let named = other.group(&words.join("_"));
    let whose = |word: &str| ["student", "teacher", "ema"].contains(&word);
    match (&reading.quantity, reading.group.as_slice()) {
        (Quantity::Loss, []) => Claim {
            signal: plain.name.to_owned(),
            second: (reading.total && reading.pace != Pace::Step).then_some(named),
        },
        (Quantity::Loss, [one]) if whose(one) => Claim { signal: plain.group(one), second: None },
        _ => Claim { signal: named, second: None },
    }
}

/// A term of the training loss.
fn claim_term(reading: &Reading, context: &Context) -> Option<Claim> {
    let group: Vec<&str> = reading.group.iter().map(String::as_str).collect();
    let named = names::LOSS_TERM.group(&reading.said.join("_"));
    let signal = match group.as_slice() {
        // Those without a group compete for the total: see `claim_training_losses`.
        [] => return None,
        ["ce" | "xent" | "crossentropy"] | ["cross", "entropy"] => names::LOSS_CROSS_ENTROPY,
        ["bce"] => names::LOSS_BCE,
        ["focal"] => names::LOSS_FOCAL,
        ["dice"] => names::LOSS_DICE,
        ["iou"] => names::LOSS_IOU,
        ["boundary"] => names::LOSS_BOUNDARY,
        ["edge"] => names::LOSS_EDGE,
        ["cldice"] => names::LOSS_CLDICE,
        ["ldam"] => names::LOSS_LDAM,
        ["consistency" | "cons"] => names::LOSS_CONSISTENCY,
        ["unsup" | "unsupervised"] => names::LOSS_CONSISTENCY,
        ["sup" | "supervised"] => names::LOSS_SUPERVISED,
        ["x"] if context.fixmatch => names::LOSS_SUPERVISED,
        ["st"] | ["self", "training"] => names::LOSS_SELF_TRAINING,
        ["fm"] | ["feature", "matching"] => names::LOSS_FEATURE_MATCHING,
        ["deep", "supervision"] => names::LOSS_DEEP_SUPERVISION,
        ["load", "balance" | "balancing"] => names::LOSS_LOAD_BALANCE,
        // Of reinforcement learning.
        [term @ ("value" | "policy" | "entropy" | "actor")] => {
            return Some(Claim { signal: names::LOSS_TERM.group(term), second: Some(named) });
        }
        _ => return Claim::only(named),
    };
    Some(Claim { signal: signal.name.to_owned(), second: Some(named) })
}

/// Of the losses that are all of the training loss one is `loss/total`: the one of single steps, else one called a total, else one
/// without a split, else the shortest name. The best of those left that says `train` or `epoch` is `train/loss`: a mean over the
/// epoch, or measured again at its end. Others are the same once more, except for a bare `loss` beside a total: a term.
fn claim_training_losses(logged: &[&str], readings: &[Reading], claims: &mut [Option<Claim>]) {
    let mut candidates: Vec<usize> = (0..logged.len())
        .filter(|&at| {
            let reading = &readings[at];
            reading.quantity == Quantity::Loss && reading.group.is_empty() && !evaluated(reading)
        })
        .collect();
    candidates.sort_by_key(|&at| {
        let reading = &readings[at];
        (reading.pace, !reading.total, reading.split.is_some(), reading.said.len(), logged[at].len())
    });
    let mut total_is_own = logged.contains(&names::LOSS_TOTAL.name);
    let mut trained_is_free = true;
    let mut by_total = total_is_own;
    for at in candidates {
        let reading = &readings[at];
        if !total_is_own {
            claims[at] = Claim::only(names::LOSS_TOTAL.name);
            (total_is_own, by_total) = (true, reading.total);
            continue;
        }
        // The last record of Hugging Face's trainer has the mean over the whole run as `train_loss`.
        let of_the_whole_run = logged.contains(&"train_runtime");
        if trained_is_free
            && !of_the_whole_run
            && (reading.split == Some(Split::Train) || reading.pace == Pace::Epoch)
        {
            claims[at] = Claim::only(names::TRAIN_LOSS.name);
            trained_is_free = false;
        } else if by_total && reading.split.is_none() && reading.pace == Pace::Unsaid && !reading.total {
            claims[at] = Claim::only(names::LOSS_TERM.group(&reading.said.join("_")));
        }
    }
}
