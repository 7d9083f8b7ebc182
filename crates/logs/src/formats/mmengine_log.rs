//! The text log of MMEngine and mmcv: MMSegmentation, MMDetection and others.
//!
//! Tables with a row for each class are passed over: the summary line after them has their means.

use serde_json::Value;
use trimtab_signals::{Key, keys};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::key_values::{Item, Number, Position, Split, is_noise, position, scan};
use crate::log_line::{Clock, Ending, each_line, time_and_message};
use crate::python;

/// Longest configuration that is read, in bytes.
const LONGEST_CONFIG: usize = 1 << 20;

pub(crate) static FORMAT: Format = Format {
    id: "mmengine-log",
    summary: "MMEngine, mmcv: the .log of MMSegmentation, MMDetection, …",
    recognise,
    read,
    layout: Layout::File,
    rank: 28,
    depth: in_the_run_folder,
};

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    peek.lines().take(200).any(|line| logger(line).is_some()).then_some(Certainty::Sure)
}

/// What follows `2024/04/19 14:20:03 - mmengine - INFO - `, from the logger's name on.
fn logger(line: &str) -> Option<&str> {
    let rest = line.get(19..)?;
    let rest = rest.find(" - mm").filter(|&at| at < 8).and_then(|at| rest.get(at + 3..))?;
    let (name, rest) = rest.split_once(" - ")?;
    let stamped = time_and_message(line).0.is_some();
    (stamped && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')).then_some(rest)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    builder.fact(&keys::RUN_FRAMEWORK, "mmengine");
    let mut log = Log::default();
    for input in inputs {
        each_line(input, |line, whole| log.line(line, whole, builder))?;
        log.declare_config(builder);
    }
    if log.step.is_some() && log.step == log.total {
        log.ending.finish();
    }
    let found = log.ending.is_known() || log.step.is_some();
    log.ending.declare(builder);
    match inputs.first() {
        Some(input) if !found && builder.is_empty() && builder.facts().iter().nth(1).is_none() => {
            Err(LogError::content(input.path(), "no iteration and no configuration in it"))
        }
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Log {
    clock: Clock,
    ending: Ending,
    /// The last iteration of training.
    step: Option<i64>,
    /// Iterations planned.
    total: Option<i64>,
    per_epoch: Option<f64>,
    /// The configuration being read.
    config: Option<String>,
}

impl Log {
    fn line(&mut self, line: &str, whole: bool, builder: &mut RunBuilder) {
        let logged = logger(line).is_some();
        if logged {
            self.declare_config(builder);
        }
        if let Some(config) = &mut self.config {
            if config.len() + line.len() < LONGEST_CONFIG {
                config.push_str(line);
                config.push('\n');
            }
            return;
        }
        let (stamp, message) = time_and_message(line);
        if self.ending.look(message) || !whole {
            return;
        }
        let seconds = stamp.map(|stamp| self.clock.seconds(stamp));
        if logged && message.trim_end() == "Config:" {
            self.config = Some(String::new());
        } else if message.starts_with("Iter") || message.starts_with("Epoch") {
            self.record(message, seconds, builder);
        } else if let Some(count) = message.trim().strip_prefix("GPU number: ")
            && let Ok(count) = count.parse::<u64>()
        {
            builder.fact(&keys::OPTIM_DEVICES, count);
        }
    }

    /// `Iter(train) [   50/40000]  lr: 9.9e-03  loss: 0.9`, `Epoch(val) [1][500/500]  mIoU: 79.1`.
    fn record(&mut self, message: &str, seconds: Option<f64>, builder: &mut RunBuilder) {
        let items = scan(message);
        let Some(Item::Number(place)) = items.first() else { return };
        let Some((counted, _)) = position(place.key) else { return };
        let evaluation = matches!(Split::of_key(place.key), Some(Split::Validation | Split::Test));
        if !(0.0..1e12).contains(&place.value) {
            return;
        }
        if !evaluation {
            self.train(place, counted, builder);
        } else if counted == Position::Epoch
            && let Some(length) = self.per_epoch
        {
            // An evaluation stands at the end of its epoch, also where the last iterations were not printed.
            self.step = Some((place.value * length) as i64);
        }
        let step = self.step.unwrap_or(0);
        let mut any = false;
        for item in items.iter().skip(1) {
            let Item::Number(number) = item else { continue };
            if is_noise(number.key) || !number.separated {
                continue;
            }
            any = true;
            if evaluation && Split::of_key(number.key).is_none() {
                builder.put(&format!("val/{}", number.key), step, number.value);
            } else {
                builder.put(number.key, step, number.value);
            }
        }
        if any {
            self.ending.went_on();
            if let Some(seconds) = seconds
                && !evaluation
            {
                builder.time(step, seconds);
            }
        }
    }

    /// Moves to a place in training.
    fn train(&mut self, place: &Number<'_>, counted: Position, builder: &mut RunBuilder) {
        let (step, epoch) = match (counted, place.counter) {
            (Position::Epoch, Some((iteration, length))) => {
                self.per_epoch = length.filter(|length| *length < 1e9).or(self.per_epoch);
                let length = self.per_epoch.unwrap_or(0.0);
                ((place.value - 1.0).max(0.0) * length + iteration.clamp(0.0, 1e12), Some(place.value - 1.0))
            }
            (Position::Epoch, None) => (place.value, Some(place.value - 1.0)),
            _ => (place.value, None),
        };
        let step = step as i64;
        self.step = Some(step);
        if let Some(epoch) = epoch {
            builder.epoch(step, epoch.max(0.0));
            if let Some(length) = self.per_epoch {
                builder.fact(&keys::RUN_STEPS_PER_EPOCH, length as u64);
            }
        } else if let Some(total) = place.total
            && total < 1e15
            && self.total != Some(total as i64)
        {
            self.total = Some(total as i64);
            builder.fact(&keys::RUN_STEPS, total as u64);
        }
    }

    fn declare_config(&mut self, builder: &mut RunBuilder) {
        if let Some(config) = self.config.take() {
            declare(&config, builder);
        }
    }
}

/// Declares what matters of a configuration: assignments of Python literals at the start of lines.
fn declare(config: &str, builder: &mut RunBuilder) {
    const WANTED: [&str; 18] = [
        "optim_wrapper",
        "optimizer",
        "optimizer_config",
        "train_cfg",
        "train_dataloader",
        "param_scheduler",
        "lr_config",
        "runner",
        "data",
        "randomness",
        "seed",
        "model",
        "evaluation",
        "total_epochs",
        "total_iters",
        "auto_scale_lr",
        "load_from",
        "img_norm_cfg",
    ];
    let mut known: Vec<(&str, Value)> = Vec::new();
    let mut at = 0;
    for line in config.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let Some((name, _)) = line.split_once(" = ") else { continue };
        if WANTED.contains(&name)
            && let Some((value, _)) = config.get(start + name.len() + 3..).and_then(python::literal)
        {
            known.push((name, value));
        }
    }
    let find = |paths: &[&str]| -> Option<Value> {
        paths.iter().find_map(|path| {
            let (name, rest) = path.split_once('.').map_or((*path, None), |(name, rest)| (name, Some(rest)));
            let value = &known.iter().find(|(known, _)| *known == name)?.1;
            let found = match rest {
                None => Some(value),
                Some(rest) => rest.split('.').try_fold(value, |value, part| match part.parse::<usize>() {
                    Ok(index) => value.get(index),
                    Err(_) => value.get(part),
                }),
            };
            found.filter(|v| !v.is_null()).cloned()
        })
    };
    let facts: [(&Key, &[&str]); 15] = [
        (&keys::OPTIM_LEARNING_RATE, &["optim_wrapper.optimizer.lr", "optimizer.lr"]),
        (&keys::OPTIM_WEIGHT_DECAY, &["optim_wrapper.optimizer.weight_decay", "optimizer.weight_decay"]),
        (
            &keys::OPTIM_MOMENTUM,
            &[
                "optim_wrapper.optimizer.momentum",
                "optimizer.momentum",
                "optim_wrapper.optimizer.betas.0",
                "optimizer.betas.0",
            ],
        ),
        (&keys::OPTIM_BETA2, &["optim_wrapper.optimizer.betas.1", "optimizer.betas.1"]),
        (
            &keys::OPTIM_CLIP_NORM,
            &["optim_wrapper.clip_grad.max_norm", "optimizer_config.grad_clip.max_norm"],
        ),
        (
            &keys::OPTIM_ACCUMULATION,
            &["optim_wrapper.accumulative_counts", "optimizer_config.cumulative_iters"],
        ),
        (&keys::OPTIM_BATCH_SIZE, &["train_dataloader.batch_size", "data.samples_per_gpu"]),
        (&keys::RUN_STEPS, &["train_cfg.max_iters", "runner.max_iters", "total_iters"]),
        (&keys::RUN_EPOCHS, &["train_cfg.max_epochs", "runner.max_epochs", "total_epochs"]),
        (&keys::EVALUATE_INTERVAL, &["train_cfg.val_interval", "evaluation.interval"]),
        (&keys::RUN_SEED, &["randomness.seed", "seed"]),
        (
            &keys::DATA_CLASSES,
            &[
                "model.decode_head.num_classes",
                "model.head.num_classes",
                "model.bbox_head.num_classes",
                "model.roi_head.bbox_head.num_classes",
            ],
        ),
        (&keys::SCHEDULE_WARMUP_STEPS, &["lr_config.warmup_iters"]),
        (&keys::DATA_IGNORE_LABEL, &["model.decode_head.ignore_index"]),
        (&keys::LOSS_CLASS_WEIGHTS, &["model.decode_head.loss_decode.class_weight"]),
    ];
    for (key, paths) in facts {
        if let Some(value) = find(paths) {
            // The interval is in epochs where training is.
            if *key == keys::EVALUATE_INTERVAL && find(&["train_cfg.max_iters", "runner.max_iters"]).is_none()
            {
                continue;
            }
            builder.fact(key, value);
        }
    }
    for (key, paths) in [
        (&keys::OPTIM_NAME, &["optim_wrapper.optimizer.type", "optimizer.type"][..]),
        (&keys::SCHEDULE_NAME, &["lr_config.policy"][..]),
    ] {
        if let Some(Value::String(name)) = find(paths) {
            builder.fact(key, name.to_lowercase());
        }
    }
    // Of several schedules the last follows the warm-up.
    if let Some(last) =
        find(&["param_scheduler"]).as_ref().and_then(Value::as_array).and_then(|all| all.last())
    {
        if let Some(name) = last.get("type").and_then(Value::as_str) {
            builder.fact(&keys::SCHEDULE_NAME, name.strip_suffix("LR").unwrap_or(name).to_lowercase());
        }
        if let Some(end) = last.get("end").and_then(Value::as_u64) {
            let by_epoch = last.get("by_epoch").and_then(Value::as_bool).unwrap_or(true);
            let key = if by_epoch { &keys::SCHEDULE_HORIZON_EPOCHS } else { &keys::SCHEDULE_HORIZON_STEPS };
            builder.fact(key, end);
        }
    }
    if find(&["load_from"]).is_some() {
        builder.fact(&keys::MODEL_PRETRAINED, true);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trimtab_signals::Run;

    use crate::read_bytes;

    const LOG: &str = "\
2024/04/19 14:20:03 - mmengine - INFO - 
System environment:
    GPU number: 2
2024/04/19 14:20:03 - mmengine - INFO - Config:
cfg = dict(
    optimizer=dict(lr=9.0, type='No'))
optim_wrapper = dict(
    clip_grad=None,
    optimizer=dict(lr=0.01, momentum=0.9, type='SGD', weight_decay=0.0005),
    type='OptimWrapper')
param_scheduler = [
    dict(by_epoch=False, end=100, type='PolyLR'),
]
randomness = dict(seed=3)
train_cfg = dict(max_iters=100, type='IterBasedTrainLoop', val_interval=50)
train_dataloader = dict(
    batch_size=4,
    num_workers=2)

2024/04/19 14:20:28 - mmengine - INFO - Iter(train) [   50/100]  lr: 9.9891e-03  eta: 1 day, 4:45:41  time: 0.3712  data_time: 0.0021  memory: 5117  loss: 0.9029  decode.loss_ce: nan
2024/04/19 14:20:30 - mmengine - INFO - Iter(val) [50/100]    eta: 0:00:07  time: 0.0162  data_time: 0.0010  memory: 1566  
2024/04/19 14:20:31 - mmengine - INFO - per class results:
2024/04/19 14:20:31 - mmengine - INFO - 
+-------+-------+
| Class |  IoU  |
|  cat  | 30.0  |
+-------+-------+
2024/04/19 14:20:32 - mmengine - INFO - Iter(val) [100/100]    aAcc: 79.  mIoU: 30.5000  data_time: 0.0010  time: 0.0230
2024/04/19 14:21:28 - mmengine - INFO - Iter(train) [  100/100]  lr: 1.0e-03  eta: 0:00:00  time: 0.3712  loss: 0.5
2024/04/19 14:21:32 - mmengine - INFO - Iter(val) [100/100]    aAcc: 80.  mIoU: 31.5000  data_time: 0.0010  time: 0.0230
";

    fn read(text: &str) -> Run {
        read_bytes("mmengine-log", "a.log", text.as_bytes()).expect("readable")
    }

    fn logged<'a>(run: &'a Run, name: &str) -> &'a trimtab_signals::Column {
        run.logged(name).unwrap_or_else(|| panic!("no column {name}"))
    }

    #[test]
    fn iterations_evaluations_and_the_configuration_are_read() {
        let run = read(LOG);
        assert_eq!(logged(&run, "loss").steps(), [50, 100]);
        assert!(logged(&run, "decode.loss_ce").values()[0].is_nan());
        let miou = logged(&run, "val/mIoU");
        assert_eq!((miou.steps(), miou.values()), (&[50, 100][..], &[30.5, 31.5][..]));
        assert_eq!(logged(&run, "val/aAcc").values(), [79.0, 80.0]);
        assert_eq!(run.trace.names().count(), 5);
        assert_eq!(run.trace.times().at(100), Some(85.0));
        for (key, value) in [
            ("optim.learning_rate", 0.01),
            ("optim.momentum", 0.9),
            ("optim.batch_size", 4.0),
            ("optim.devices", 2.0),
            ("run.steps", 100.0),
            ("run.seed", 3.0),
            ("evaluate.interval", 50.0),
            ("schedule.horizon_steps", 100.0),
        ] {
            assert_eq!(run.facts.number(key), Some(value), "{key}");
        }
        assert_eq!(run.facts.text("optim.name"), Some("sgd"));
        assert_eq!(run.facts.boolean("run.finished"), Some(true));
    }

    #[test]
    fn epochs_of_either_generation_become_iterations() {
        for text in [
            "2024/04/19 14:20:03 - mmengine - INFO - Epoch(train) [1][50/100]  lr: 1.0e-02  loss: 0.9\n\
             2024/04/19 14:20:03 - mmengine - INFO - Epoch(val) [1][500/500]    mIoU: 0.3  time: 0.1\n\
             2024/04/19 14:20:03 - mmengine - INFO - Epoch(train) [2][50/100]  lr: 1.0e-02  loss: 0.8\n",
            "2021-04-19 14:20:03,123 - mmseg - INFO - Epoch [1][50/100]\tlr: 1.000e-02, eta: 0:10:00, time: 0.1, loss: 0.9\n\
             2021-04-19 14:20:03,123 - mmseg - INFO - Epoch(val) [1][500]\tmIoU: 0.3\n\
             2021-04-19 14:20:03,123 - mmseg - INFO - Epoch [2][50/100]\tlr: 1.000e-02, eta: 0:10:00, time: 0.1, loss: 0.8\n",
        ] {
            let run = read(text);
            assert_eq!(logged(&run, "loss").steps(), [50, 150], "{text}");
            assert_eq!(logged(&run, "val/mIoU").steps(), [100], "{text}");
            assert_eq!(run.trace.epochs().values(), [0.0, 1.0]);
            assert_eq!(run.facts.integer("run.steps_per_epoch"), Some(100));
        }
    }

    #[test]
    fn a_crash_before_the_first_iteration_is_a_run() {
        let run = read(
            "2024/04/19 14:20:03 - mmengine - INFO - start\nTraceback (most recent call last):\n  File\nKeyError: 'x'\n",
        );
        assert_eq!(run.facts.text("run.crash"), Some("KeyError: 'x'"));
        assert!(read_bytes("mmengine-log", "a.log", b"nothing").is_err());
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at in 0..LOG.len(), bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut log = LOG.as_bytes().to_vec();
            log.splice(at..(at + bytes.len()).min(LOG.len()), bytes);
            let _ = read_bytes("mmengine-log", "a.log", &log);
            let _ = read_bytes("mmengine-log", "a.log", &log[..at]);
        }
    }
}
