//! The JSON lines of OpenMMLab: `vis_data/<time>.json` of MMEngine and `<time>.log.json` of MMCV 1.x.

use std::path::Path;

use serde_json::Value;
use trimtab_signals::{keys, names};

use super::{Certainty, Format, Layout, Peek};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::json_lines::{self, EpochSteps, Object, Sink};

/// `vis_data/*.json` of MMEngine, `*.log.json` of MMCV 1.x.
pub const FORMAT: Format = Format {
    id: "mmengine-json",
    summary: "JSON lines of OpenMMLab: vis_data/*.json (MMEngine), *.log.json (MMCV 1.x)",
    recognise,
    read,
    layout: Layout::Folder,
    rank: 30,
    depth,
};

/// Fields that are not measurements.
const POSITIONS: [&str; 5] = ["mode", "epoch", "iter", "step", "eta"];
/// Most that is read of a configuration.
const LARGEST_CONFIG: u64 = 1 << 20;

fn depth(path: &Path) -> usize {
    usize::from(path.parent().and_then(Path::file_name).is_some_and(|name| name == "vis_data"))
}

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    json_lines::head_objects(peek).iter().any(is_training).then_some(Certainty::Sure)
}

/// Whether a record is one of training as MMEngine or MMCV writes them.
fn is_training(record: &Object) -> bool {
    let has = |name: &str| record.contains_key(name);
    let mmcv = record.get("mode").is_some_and(|mode| mode == "train") && has("epoch") && has("iter");
    // Another program's record of an iteration has neither the time of its data nor counts it twice.
    let mmengine = has("iter") && has("step") && (has("data_time") || has("memory"));
    mmcv || mmengine
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    let Some(first) = inputs.first() else { return Ok(()) };
    builder.fact(&keys::RUN_FRAMEWORK, "openmmlab");
    let mut log = Log::default();
    for input in inputs {
        // MMEngine's `scalars.json` repeats what is in the file named by the time.
        if input.name() == "scalars.json" && inputs.len() > 1 {
            continue;
        }
        json_lines::each_object(input, builder, |record, builder| log.push(&record, builder))?;
    }
    if log.unplaced > 0 {
        builder.note(format!("{} records without a step were passed over", log.unplaced));
    }
    if let Some(text) = first.beside("config.py").and_then(|config| config.to_text(LARGEST_CONFIG).ok()) {
        declare_config(&text, builder);
    }
    log.sink.check(first)
}

#[derive(Default)]
struct Log {
    sink: Sink,
    steps: EpochSteps,
    /// Step of the last record of training.
    last: Option<i64>,
    /// Whether records of training have an epoch.
    by_epoch: bool,
    unplaced: u64,
}

impl Log {
    fn push(&mut self, record: &Object, builder: &mut RunBuilder) {
        let whole = |name: &str| record.get(name).and_then(json_lines::whole);
        let mode = record.get("mode").and_then(Value::as_str);
        let training = match mode {
            Some(mode) => mode == "train",
            None => ["iter", "lr", "base_lr"].iter().any(|name| record.contains_key(*name)),
        };
        if training {
            let epoch = whole("epoch");
            let step = match (whole("step"), whole("iter"), epoch) {
                // MMEngine's is counted over the whole run.
                (Some(step), ..) => step,
                // MMCV's starts anew in each epoch where the run is counted in epochs.
                (None, Some(iteration), Some(epoch)) => self.steps.step(epoch, iteration, true),
                (None, Some(iteration), None) => iteration,
                (None, None, _) => {
                    self.unplaced += 1;
                    return;
                }
            };
            self.last = Some(step);
            if let Some(epoch) = epoch {
                self.by_epoch = true;
                // Both count from 1.
                self.sink.epoch(builder, step, epoch.saturating_sub(1).max(0) as f64);
            }
            self.put(record, "", step, builder);
            return;
        }
        // The first line of MMCV tells of the machine.
        if ["env_info", "exp_name", "seed", "config"].iter().any(|name| record.contains_key(*name)) {
            self.declare(record, builder);
            return;
        }
        // The step of an evaluation is an epoch where the run is counted in epochs, and MMCV's iteration is one of the evaluation:
        // neither says where in the training it was, the record before does.
        let logged = if mode.is_some() || self.by_epoch { None } else { whole("step") };
        match logged.or(self.last).or_else(|| whole("step")) {
            Some(step) => self.put(record, "val/", step, builder),
            None => self.unplaced += 1,
        }
    }

    fn put(&mut self, record: &Object, prefix: &str, step: i64, builder: &mut RunBuilder) {
        let evaluation = !prefix.is_empty();
        for (name, value) in record {
            // In an evaluation these are its own speed, and MMCV repeats the learning rate.
            let of_training = ["time", "data_time", "lr", "memory"].contains(&name.as_str());
            if POSITIONS.contains(&name.as_str()) || (evaluation && of_training) {
                continue;
            }
            json_lines::measurements(value, |path, value| {
                // A record has only what was measured; `null` is what strict writers put for `NaN`.
                let Some(value) = json_lines::number(value) else { return };
                let slash = if path.is_empty() { "" } else { "/" };
                let Some(column) =
                    self.sink.put(builder, &format!("{prefix}{name}{slash}{path}"), step, value)
                else {
                    return;
                };
                // Seconds an iteration, not since the start.
                match name.as_str() {
                    "time" if path.is_empty() => builder.is_signal(column, names::TIME_STEP_SECONDS.name),
                    "data_time" if path.is_empty() => {
                        builder.is_signal(column, names::TIME_LOAD_SECONDS.name);
                    }
                    _ => {}
                }
            });
        }
    }

    fn declare(&self, record: &Object, builder: &mut RunBuilder) {
        if let Some(seed) = record.get("seed").and_then(Value::as_u64) {
            builder.fact(&keys::RUN_SEED, seed);
        }
        if let Some(name) = record.get("exp_name").filter(|name| name.is_string()) {
            builder.declare("exp_name", name);
        }
        if let Some(config) = record.get("config").and_then(Value::as_str) {
            declare_config(config, builder);
        }
    }
}

/// Declares what is known of a configuration of OpenMMLab, given as the Python text it is dumped as. Nothing is executed: only
/// literals are read.
pub(crate) fn declare_config(text: &str, builder: &mut RunBuilder) {
    let mut schedules: Vec<(String, Value)> = Vec::new();
    literals(text, |path, value| {
        // A notebook's dump is all in one `cfg = dict(…)`.
        let path = path.strip_prefix("cfg.").unwrap_or(path);
        if let Some(rest) = path.strip_prefix("param_scheduler") {
            if schedules.len() < 1000 {
                schedules.push((rest.trim_start_matches('.').to_owned(), value));
            }
            return;
        }
        let key = match path {
            "train_cfg.max_iters" | "runner.max_iters" | "total_iters" => &keys::RUN_STEPS,
            "train_cfg.max_epochs" | "runner.max_epochs" | "total_epochs" => &keys::RUN_EPOCHS,
            "optim_wrapper.optimizer.lr" | "optimizer.lr" => &keys::OPTIM_LEARNING_RATE,
            "optim_wrapper.optimizer.weight_decay" | "optimizer.weight_decay" => &keys::OPTIM_WEIGHT_DECAY,
            "optim_wrapper.optimizer.momentum" | "optimizer.momentum" => &keys::OPTIM_MOMENTUM,
            "optim_wrapper.optimizer.betas.0" | "optimizer.betas.0" => &keys::OPTIM_MOMENTUM,
            "optim_wrapper.optimizer.betas.1" | "optimizer.betas.1" => &keys::OPTIM_BETA2,
            "optim_wrapper.optimizer.type" | "optimizer.type" => &keys::OPTIM_NAME,
            "optim_wrapper.clip_grad.max_norm" | "optimizer_config.grad_clip.max_norm" => {
                &keys::OPTIM_CLIP_NORM
            }
            "optim_wrapper.accumulative_counts" => &keys::OPTIM_ACCUMULATION,
            "train_dataloader.batch_size" | "data.samples_per_gpu" => &keys::OPTIM_BATCH_SIZE,
            "model.decode_head.num_classes"
            | "model.decode_head.0.num_classes"
            | "model.head.num_classes"
            | "model.bbox_head.num_classes"
            | "model.roi_head.bbox_head.num_classes" => &keys::DATA_CLASSES,
            "model.decode_head.ignore_index" => &keys::DATA_IGNORE_LABEL,
            "randomness.seed" | "seed" => &keys::RUN_SEED,
            "lr_config.policy" => &keys::SCHEDULE_NAME,
            "lr_config.warmup_iters" => &keys::SCHEDULE_WARMUP_STEPS,
            "load_from" | "model.pretrained" | "model.backbone.init_cfg.checkpoint" => {
                if value.is_string() {
                    builder.fact(&keys::MODEL_PRETRAINED, true);
                    builder.declare(path, &value);
                }
                return;
            }
            // In iterations or in epochs, as the loop is counted.
            "train_cfg.val_interval" | "evaluation.interval" => {
                builder.declare(path, &value);
                return;
            }
            _ => return,
        };
        let value = match &value {
            Value::Null => return,
            Value::String(text) if key.kind == "text" => Value::from(text.to_lowercase()),
            // A name where a number belongs: of a variable, which is not evaluated.
            Value::String(_) => return,
            _ => value,
        };
        builder.fact(key, value);
    });
    // Evaluations are counted as the loop is.
    let interval = builder.facts().integer("declared.train_cfg.val_interval");
    if let Some(interval) = interval.filter(|_| builder.facts().get(keys::RUN_STEPS.name).is_some()) {
        builder.fact(&keys::EVALUATE_INTERVAL, interval);
    }
    declare_schedules(&schedules, builder);
}

/// The schedules of the learning rate: one that begins at 0, is linear and is followed by another is the warm-up.
fn declare_schedules(entries: &[(String, Value)], builder: &mut RunBuilder) {
    let entry = |index: usize, name: &str| {
        // A single schedule need not be in a list.
        let (listed, alone) = (format!("{index}.{name}"), name);
        let found = entries.iter().find(|(path, _)| *path == listed || (index == 0 && path == alone));
        found.map(|(_, value)| value)
    };
    let mut index = 0;
    while let Some(kind) = entry(index, "type").and_then(Value::as_str) {
        let by_epoch = entry(index, "by_epoch").and_then(Value::as_bool).unwrap_or(true);
        let end = entry(index, "end").and_then(Value::as_f64);
        let followed = entry(index + 1, "type").is_some();
        let from_start = entry(index, "begin").and_then(Value::as_f64).is_none_or(|begin| begin <= 0.0);
        if kind == "LinearLR" && followed && from_start {
            if let Some(end) = end {
                let key = if by_epoch { &keys::SCHEDULE_WARMUP_EPOCHS } else { &keys::SCHEDULE_WARMUP_STEPS };
                builder.fact(key, end);
            }
        } else {
            let name = kind.strip_suffix("LR").unwrap_or(kind).to_lowercase();
            builder.fact(&keys::SCHEDULE_NAME, name.replace("annealing", ""));
            let end = entry(index, "T_max").and_then(Value::as_f64).or(end);
            if let Some(end) = end {
                let key =
                    if by_epoch { &keys::SCHEDULE_HORIZON_EPOCHS } else { &keys::SCHEDULE_HORIZON_STEPS };
                builder.facts().set(key.group("learning_rate"), end);
            }
        }
        index += 1;
    }
}

/// Hands the literals of a Python text of nested `dict(name=value)`, `{'name': value}` and lists to `visit`, each with its dotted
/// path. A bare name is given as a text.
fn literals(text: &str, mut visit: impl FnMut(&str, Value)) {
    /// Longer paths are of no interest.
    const LONGEST_PATH: usize = 256;
    let bytes = text.as_bytes();
    // For each open bracket the length of the path before it, and the position within it.
    let mut open: Vec<(usize, u64)> = Vec::new();
    let (mut path, mut pending) = (String::new(), None::<&str>);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        let word = match byte {
            b'#' => {
                at += memchr::memchr(b'\n', bytes.get(at..).unwrap_or_default()).unwrap_or(bytes.len() - at);
                continue;
            }
            b',' => {
                pending = None;
                if let Some((_, position)) = open.last_mut() {
                    *position += 1;
                }
                continue;
            }
            b'(' | b'[' | b'{' => {
                let length = path.len();
                // At the top a bracket without a name is no assignment.
                if path.len() < LONGEST_PATH && (pending.is_some() || !open.is_empty()) {
                    extend(&mut path, pending.take(), open.last());
                }
                open.push((length, 0));
                continue;
            }
            b')' | b']' | b'}' => {
                pending = None;
                if let Some((length, _)) = open.pop() {
                    path.truncate(length);
                }
                continue;
            }
            b'\'' | b'"' => {
                while let Some(&inside) = bytes.get(at) {
                    at += 1;
                    match inside {
                        b'\\' => at += 1,
                        _ if inside == byte => break,
                        _ => {}
                    }
                }
                text.get(start + 1..at.saturating_sub(1).max(start + 1))
            }
            _ if is_word(byte) => {
                at += bytes.get(at..).unwrap_or_default().iter().take_while(|&&b| is_word(b)).count();
                text.get(start..at)
            }
            _ => continue,
        };
        let Some(word) = word else { continue };
        let quoted = !is_word(byte);
        let rest = bytes.get(at..).unwrap_or_default().trim_ascii_start();
        match rest {
            [b'=', after, ..] if *after != b'=' && !quoted => pending = Some(word),
            [b':', ..] if quoted => pending = Some(word),
            // The name of what is called: `dict`.
            [b'(', ..] if !quoted => {}
            _ => {
                let length = path.len();
                if (pending.is_some() || !open.is_empty()) && length < LONGEST_PATH {
                    extend(&mut path, pending.take(), open.last());
                    if path.len() <= LONGEST_PATH {
                        visit(&path, literal(word, quoted));
                    }
                }
                path.truncate(length);
            }
        }
    }
}

/// Adds a name to a path, or the position within the open bracket.
fn extend(path: &mut String, name: Option<&str>, open: Option<&(usize, u64)>) {
    if !path.is_empty() {
        path.push('.');
    }
    match (name, open) {
        (Some(name), _) => path.push_str(name),
        (None, Some((_, position))) => path.push_str(&position.to_string()),
        (None, None) => {}
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte)
}

fn literal(word: &str, quoted: bool) -> Value {
    match word {
        _ if quoted => Value::from(word),
        "None" => Value::Null,
        "True" => Value::Bool(true),
        "False" => Value::Bool(false),
        _ => match word.parse::<i64>() {
            Ok(number) => Value::from(number),
            // A number that is not finite has no place in a configuration and becomes `null`.
            Err(_) => fast_float2::parse::<f64, _>(word).map_or_else(|_| Value::from(word), Value::from),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines::tests::{logged, read as read_files, recognised, survives};

    const MMENGINE: &str = concat!(
        r#"{"lr": 0.01, "data_time": 0.002, "loss": 0.9, "decode.acc_seg": 77.0, "time": 0.3, "iter": 50, "memory": 5117, "step": 50}"#,
        "\n",
        r#"{"lr": 0.01, "data_time": 0.002, "loss": NaN, "decode.acc_seg": 87.0, "time": 0.4, "iter": 100, "memory": 5117, "step": 100}"#,
        "\n",
        r#"{"aAcc": 64.3, "mIoU": 18.2, "data_time": 0.1, "time": 9.0, "step": 100}"#,
        "\n",
    );
    const MMCV: &str = concat!(
        r#"{"env_info": "sys.platform: linux", "seed": 3, "exp_name": "x.py", "config": "optimizer = dict(type='SGD', lr=0.02)"}"#,
        "\n",
        r#"{"mode": "train", "epoch": 1, "iter": 50, "lr": 0.02, "memory": 9, "data_time": 0.1, "loss": 2.0, "time": 0.5}"#,
        "\n",
        r#"{"mode": "train", "epoch": 1, "iter": 100, "lr": 0.02, "memory": 9, "data_time": 0.1, "loss": 1.5, "time": 0.5}"#,
        "\n",
        r#"{"mode": "val", "epoch": 1, "iter": 30, "lr": 0.02, "bbox_mAP": 0.1}"#,
        "\n",
        r#"{"mode": "train", "epoch": 2, "iter": 50, "lr": 0.02, "memory": 9, "data_time": 0.1, "loss": 1.0, "time": 0.5}"#,
        "\n",
        r#"{"mode": "val", "epoch": 2, "iter": 30, "lr": 0.02, "bbox_mAP": 0.2}"#,
        "\n",
    );
    const CONFIG: &str = "
# comment with 'quote
crop_size = (\n    384,\n    384,\n)
load_from = None
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='a.pth', type='Pretrained')),
    decode_head=dict(loss_decode=dict(loss_weight=1.0), num_classes=47, type='Head'))
optim_wrapper = dict(
    clip_grad=dict(max_norm=0.5),
    optimizer=dict(betas=(0.9, 0.999,), lr=6e-05, type='AdamW', weight_decay=0.01),
    type='OptimWrapper')
param_scheduler = [
    dict(begin=0, by_epoch=False, end=1500, start_factor=1e-06, type='LinearLR'),
    dict(begin=1500, by_epoch=False, end=160000, eta_min=0.0, power=1.0, type='PolyLR'),
]
randomness = dict(seed=0)
train_cfg = dict(\n    max_iters=160000, type='IterBasedTrainLoop', val_interval=16000)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=[dict(batch_size=9)]), num_workers=max_workers)
";

    #[test]
    fn records_of_mmengine_are_training_or_validation() {
        let run = read_files(&FORMAT, &[("vis_data/x.json", MMENGINE)]).expect("readable");
        assert!(logged(&run, "loss")[1].1.is_nan());
        assert_eq!(logged(&run, "val/mIoU"), [(100, 18.2)]);
        assert_eq!(logged(&run, "decode.acc_seg").len(), 2);
        assert_eq!(run.trace.get("time/step_seconds").expect("logged").values(), [0.3, 0.4]);
        assert!(logged(&run, "val/time").is_empty());
        assert_eq!(depth(Path::new("work/2024/vis_data/2024.json")), 1);
        assert_eq!(depth(Path::new("work/2024.log.json")), 0);
    }

    #[test]
    fn evaluations_of_runs_counted_in_epochs_lie_where_training_was() {
        let text = concat!(
            r#"{"lr": 0.1, "data_time": 0.1, "loss": 1.0, "epoch": 1, "iter": 400, "memory": 1, "step": 400}"#,
            "\n",
            r#"{"coco/bbox_mAP": 0.3, "data_time": 0.1, "time": 0.1, "step": 1}"#,
            "\n",
        );
        let run = read_files(&FORMAT, &[("x.json", text)]).expect("readable");
        assert_eq!(logged(&run, "val/coco/bbox_mAP"), [(400, 0.3)]);
        assert_eq!(run.trace.epochs().iter().collect::<Vec<_>>(), [(400, 0.0)]);
    }

    #[test]
    fn iterations_of_mmcv_are_made_continuous() {
        let run = read_files(&FORMAT, &[("x.log.json", MMCV)]).expect("readable");
        assert_eq!(logged(&run, "loss"), [(50, 2.0), (100, 1.5), (150, 1.0)]);
        assert_eq!(logged(&run, "val/bbox_mAP"), [(100, 0.1), (150, 0.2)]);
        assert_eq!(logged(&run, "lr").len(), 3);
        assert_eq!(run.facts.integer(keys::RUN_SEED.name), Some(3));
        assert_eq!(run.facts.number(keys::OPTIM_LEARNING_RATE.name), Some(0.02));
    }

    #[test]
    fn the_copy_in_scalars_json_is_not_read_twice() {
        let files = [("vis_data/2024.json", MMENGINE), ("vis_data/scalars.json", MMENGINE)];
        let run = read_files(&FORMAT, &files).expect("readable");
        assert_eq!(logged(&run, "loss").len(), 2);
        assert!(run.notes.is_empty(), "{:?}", run.notes);
    }

    #[test]
    fn a_configuration_is_declared_without_running_it() {
        for text in
            [CONFIG.to_owned(), format!("cfg = dict({})", CONFIG.replace(" = ", "=").replace(")\n", "),\n"))]
        {
            let mut builder = RunBuilder::new();
            declare_config(&text, &mut builder);
            let facts = builder.facts();
            assert_eq!(facts.number(keys::OPTIM_LEARNING_RATE.name), Some(6e-5), "{text}");
            assert_eq!(facts.text(keys::OPTIM_NAME.name), Some("adamw"));
            assert_eq!(facts.number(keys::OPTIM_MOMENTUM.name), Some(0.9));
            assert_eq!(facts.number(keys::OPTIM_BETA2.name), Some(0.999));
            assert_eq!(facts.number(keys::OPTIM_CLIP_NORM.name), Some(0.5));
            assert_eq!(facts.integer(keys::OPTIM_BATCH_SIZE.name), Some(2));
            assert_eq!(facts.integer(keys::RUN_STEPS.name), Some(160_000));
            assert_eq!(facts.integer(keys::DATA_CLASSES.name), Some(47));
            assert_eq!(facts.integer(keys::EVALUATE_INTERVAL.name), Some(16_000));
            assert_eq!(facts.text(keys::SCHEDULE_NAME.name), Some("poly"));
            assert_eq!(facts.number(keys::SCHEDULE_WARMUP_STEPS.name), Some(1500.0));
            assert_eq!(facts.number("schedule.horizon_steps.learning_rate"), Some(160_000.0));
            assert_eq!(facts.boolean(keys::MODEL_PRETRAINED.name), Some(true));
        }
    }

    #[test]
    fn other_lines_are_not_taken() {
        assert_eq!(recognised(&FORMAT, "x", MMENGINE), Some(Certainty::Sure));
        assert_eq!(recognised(&FORMAT, "x", MMCV), Some(Certainty::Sure));
        for text in [
            "{\"step\":1,\"loss\":2}\n",
            "{\"iteration\":1,\"data_time\":2,\"total_loss\":1}\n",
            "{\"aAcc\":1,\"step\":2}\n",
            "{\"mode\":\"train\",\"epoch\":2}\n",
        ] {
            assert_eq!(recognised(&FORMAT, "x", text), None, "{text}");
        }
        assert!(read_files(&FORMAT, &[("x", "")]).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        survives(&FORMAT, "x.json", MMENGINE);
        survives(&FORMAT, "x.log.json", MMCV);
    }

    proptest::proptest! {
        #[test]
        fn no_configuration_makes_it_panic(text in "[a-z=(){}\\[\\],.'\"#:0-9\\\\ é\n]{0,200}") {
            declare_config(&text, &mut RunBuilder::new());
        }
    }
}
