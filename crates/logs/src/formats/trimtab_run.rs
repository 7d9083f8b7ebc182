//! Our own run directory, as `docs/run-directory.md` describes it, whoever wrote it.

use std::path::Path;

use serde_json::{Value, json};
use trimtab_signals::{RUN_INFO, Run, SIGNALS, SUMMARY, keys, names};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::json_lines::{self, Object, Sink};

/// The run directory of Trimtab.
pub const FORMAT: Format = Format {
    id: "trimtab",
    summary: "the run directory of Trimtab (signals.jsonl)",
    recognise,
    read,
    layout: Layout::Together,
    rank: 40,
    depth: in_the_run_folder,
};

/// Most that is read of `config.toml`.
const LARGEST_CONFIG: u64 = 1 << 20;

/// Reads a run directory of ours, also one that has only begun. `stage`, from 0, is the one whose settings count where the recipe
/// has several; without it the last that was trained.
///
/// # Errors
///
/// There is no `signals.jsonl`, or it can't be read.
pub fn own_run(directory: &Path, stage: Option<usize>) -> Result<Run, LogError> {
    let mut builder = RunBuilder::new();
    read_stage(&[Input::file(directory.join(SIGNALS))], &mut builder, stage.map(|stage| stage as f64))?;
    let name = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy();
    Ok(builder.finish(&name, FORMAT.id))
}

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    // Other programs write `step` and names with slashes too: the name of the file is part of the format.
    if peek.name() != SIGNALS {
        return None;
    }
    let objects = json_lines::head_objects(peek);
    let known =
        |object: &Object| step(object).is_some() && object.keys().any(|name| names::of(name).is_some());
    objects.iter().any(known).then_some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    read_stage(inputs, builder, None)
}

fn read_stage(inputs: &[Input], builder: &mut RunBuilder, wanted: Option<f64>) -> Result<(), LogError> {
    let Some(first) = inputs.first() else { return Ok(()) };
    let mut sink = Sink::new();
    let (mut without_step, mut stage) = (0_u64, None);
    for input in inputs {
        json_lines::each_object(input, builder, |record, builder| {
            let Some(step) = step(&record) else {
                without_step += 1;
                return;
            };
            if let Some(epoch) = record.get("epoch").and_then(json_lines::finite) {
                sink.epoch(builder, step, epoch);
            }
            if let Some(time) = record.get("time").and_then(json_lines::finite) {
                sink.time(builder, step, time);
            }
            for (name, value) in &record {
                if names::RESERVED.contains(&name.as_str()) {
                    continue;
                }
                // `null` is a measurement that came out as `NaN`: what was not measured is absent here.
                let Some(value) = json_lines::number(value) else { continue };
                if let Some(column) = sink.put(builder, name, step, value)
                    && names::of(name).is_some()
                {
                    builder.is_signal(column, name);
                }
                if name == names::STAGE_INDEX.name {
                    stage = Some(value);
                }
            }
        })?;
    }
    if without_step > 0 {
        builder.note(format!("{without_step} records of `{SIGNALS}` have no step and were passed over"));
    }

    let info = json_lines::document_beside(first, RUN_INFO);
    let config = config(first, builder);
    if let Some(info) = &info {
        declare_info(info, wanted, builder);
    }
    if let Some(config) = &config {
        json_lines::leaves(config, '.', |key, value| {
            if !key.is_empty() {
                builder.facts().set(format!("declared.{key}"), value.clone());
            }
        });
        if config.get("recipe").and_then(Value::as_str) == Some("two-stage") {
            declare_two_stage(config, wanted.or(stage), wanted.is_some(), builder);
        } else if config.get("optim").is_some_and(Value::is_object) {
            declare_one_stage(config, builder);
        }
    }
    match json_lines::document_beside(first, SUMMARY) {
        Some(summary) => declare_summary(&summary, builder),
        // Going on, or killed.
        None if info.is_some() || config.is_some() => builder.fact(&keys::RUN_FINISHED, false),
        None => {}
    }
    // A run that has only begun has no measurements yet.
    if info.is_some() || config.is_some() { Ok(()) } else { sink.check(first) }
}

/// The step of a record: a whole number, not negative.
fn step(record: &Object) -> Option<i64> {
    let step = json_lines::finite(record.get("step")?)?;
    (step.fract() == 0.0 && step >= 0.0).then_some(step as i64)
}

fn config(input: &Input, builder: &mut RunBuilder) -> Option<Value> {
    let text = input.beside(trimtab_signals::CONFIG)?.to_text(LARGEST_CONFIG).ok()?;
    match toml_edit::de::from_str(&text) {
        Ok(config) => Some(config),
        Err(_) => {
            builder.note(format!("`{}` is not TOML and was passed over", trimtab_signals::CONFIG));
            None
        }
    }
}

fn declare_info(info: &Value, stage: Option<f64>, builder: &mut RunBuilder) {
    builder.fact(&keys::RUN_FRAMEWORK, "trimtab");
    if let Some(steps) = info.get("steps_planned").and_then(Value::as_u64) {
        builder.fact(&keys::RUN_STEPS, steps);
    }
    if let Some(seed) = info.get("seed").and_then(Value::as_u64) {
        builder.fact(&keys::RUN_SEED, seed);
    }
    let horizons = counts(info, "schedule_horizons");
    let stage_of = |name: &str| name.split_once('/').map(|(stage, _)| stage.to_owned());
    let several = horizons.iter().any(|(name, _)| stage_of(name) != stage_of(horizons[0].0));
    for (schedule, step) in &horizons {
        match stage.map(|stage| format!("stage{}/", stage + 1.0)) {
            Some(own) => {
                if let Some(schedule) = schedule.strip_prefix(own.as_str()) {
                    builder.facts().set(keys::SCHEDULE_HORIZON_STEPS.group(schedule), *step);
                }
            }
            // Each is counted from the start of its stage: beside the length of the whole run it says nothing.
            None if several => {}
            None => builder.facts().set(keys::SCHEDULE_HORIZON_STEPS.group(schedule), *step),
        }
    }
    let parameters = counts(info, "parameter_counts");
    if !parameters.is_empty() {
        for (group, count) in &parameters {
            builder.facts().set(keys::MODEL_PARAMETERS.group(group), *count);
        }
        let sum = parameters.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        builder.fact(&keys::MODEL_PARAMETERS, sum);
    }
    declare_classes(counts(info, "class_counts"), builder);
    for name in ["version", "git_commit", "recipe", "device", "dataset_fingerprint", "started_at"] {
        if let Some(value) = info.get(name).filter(|value| value.is_string()) {
            builder.facts().set(format!("declared.run.{name}"), value.clone());
        }
    }
}

fn declare_classes(counts: Vec<(&str, u64)>, builder: &mut RunBuilder) {
    if counts.is_empty() {
        return;
    }
    let (ignored, mut classes): (Vec<_>, Vec<_>) =
        counts.into_iter().partition(|(class, _)| ["ignored", "-1"].contains(class));
    // By number where classes are numbers; otherwise in the order of the file.
    classes.sort_by_key(|(class, _)| class.parse::<u64>().unwrap_or(u64::MAX));
    let sum = |list: &[(&str, u64)]| list.iter().fold(0.0, |sum, &(_, count)| sum + count as f64);
    let (ignored, valid) = (sum(&ignored), sum(&classes));
    if ignored + valid > 0.0 {
        builder.fact(&keys::DATA_IGNORED_SHARE, ignored / (ignored + valid));
    }
    if let [("0", _), ("1", positive)] = classes.as_slice() {
        builder.fact(&keys::DATA_PREVALENCE, if valid > 0.0 { *positive as f64 / valid } else { 0.0 });
    }
    let list: Vec<u64> = classes.into_iter().map(|(_, count)| count).collect();
    builder.fact(&keys::DATA_CLASS_COUNTS, list);
}

/// A table of counts by name.
fn counts<'v>(info: &'v Value, name: &str) -> Vec<(&'v str, u64)> {
    let table = info.get(name).and_then(Value::as_object);
    table.into_iter().flatten().filter_map(|(name, count)| Some((name.as_str(), count.as_u64()?))).collect()
}

fn declare_summary(summary: &Value, builder: &mut RunBuilder) {
    let status = summary.get("status").and_then(Value::as_str).unwrap_or_default();
    let reason = summary.get("reason").and_then(Value::as_str);
    builder.facts().set("declared.summary.status", status);
    if let Some(reason) = reason {
        builder.facts().set("declared.summary.reason", reason);
    }
    // A run that a rule of its own ended early has come to its end too.
    builder.fact(&keys::RUN_FINISHED, ["finished", "stopped"].contains(&status));
    if status == "failed" {
        builder.fact(&keys::RUN_CRASH, reason.unwrap_or("failed"));
    }
}

/// What the recipe `two-stage` declares. Keys that exist in each stage are those of the stage that ran last: what is measured at
/// the end of the trace was trained with them.
fn declare_two_stage(config: &Value, stage: Option<f64>, one_alone: bool, builder: &mut RunBuilder) {
    let at = |path: &str| config.pointer(path);
    let number = |path: &str| at(path).and_then(Value::as_f64);
    let first_skipped = at("/stage2/checkpoint").and_then(Value::as_str).is_some_and(|path| !path.is_empty());
    let last = if first_skipped || stage.is_some_and(|index| index >= 1.0) { "stage2" } else { "stage1" };

    builder.fact(&keys::OPTIM_NAME, "adamw");
    let warmup = at(&format!("/{last}/ema_warmup")).and_then(Value::as_bool);
    builder.fact(&keys::EMA_WARMUP, warmup.unwrap_or(true));
    builder.fact(&keys::MODEL_PRETRAINED, first_skipped);
    let of_the_stage = [
        ("learning_rate", &keys::OPTIM_LEARNING_RATE),
        ("weight_decay", &keys::OPTIM_WEIGHT_DECAY),
        ("batch", &keys::OPTIM_BATCH_SIZE),
        ("accumulate", &keys::OPTIM_ACCUMULATION),
        ("decay", &keys::SCHEDULE_NAME),
        ("ema_decay", &keys::EMA_DECAY),
    ];
    for (name, key) in of_the_stage {
        if let Some(value) = at(&format!("/{last}/{name}")) {
            builder.fact(key, value.clone());
        }
    }
    // What happens in the first epochs of a stage can be compared with the first steps of the log only where that stage comes first.
    if one_alone || first_skipped || last == "stage1" {
        let early = [
            ("warmup_epochs", &keys::SCHEDULE_WARMUP_EPOCHS),
            ("freeze_encoder_epochs", &keys::MODEL_FREEZE_EPOCHS),
        ];
        for (name, key) in early {
            if let Some(value) = at(&format!("/{last}/{name}")) {
                builder.fact(key, value.clone());
            }
        }
    }
    // Here 0 stands for what is not done at all, or not given.
    let positive = |name: &str| number(&format!("/{last}/{name}")).filter(|&number| number > 0.0);
    if let Some(norm) = positive("clip_norm") {
        builder.fact(&keys::OPTIM_CLIP_NORM, norm);
    }
    if let (Some(rate), Some(scale)) = (positive("learning_rate"), positive("encoder_rate_scale"))
        && scale != 1.0
    {
        builder.facts().set(keys::OPTIM_LEARNING_RATE.group("encoder"), rate * scale);
    }
    let every = number("/evaluate/every_epochs").unwrap_or(1.0);
    if let Some(steps) = positive("steps_per_epoch") {
        builder.fact(&keys::RUN_STEPS_PER_EPOCH, steps as u64);
        builder.fact(&keys::EVALUATE_INTERVAL, (steps * every) as u64);
    }
    if let Some(weight) = number("/loss/positive_weight") {
        builder.fact(&keys::LOSS_CLASS_WEIGHTS, json!([1.0, weight]));
    }
    let weights = [
        ("focal", number("/loss/focal")),
        ("dice", number("/loss/dice")),
        ("bce", number("/loss/bce")),
        ("consistency", number(&format!("/{last}/consistency_weight"))),
    ];
    for (term, weight) in weights {
        if let Some(weight) = weight {
            builder.facts().set(keys::LOSS_WEIGHT.group(term), weight);
        }
    }
    let epochs = |stage: &str| number(&format!("/{stage}/epochs")).unwrap_or(0.0);
    let planned = match (one_alone, first_skipped) {
        (true, _) => epochs(last),
        (false, true) => epochs("stage2"),
        (false, false) => epochs("stage1") + epochs("stage2"),
    };
    if planned > 0.0 {
        builder.fact(&keys::RUN_EPOCHS, planned as u64);
    }
    if let Some(patience) = number("/early_stopping/patience").filter(|&validations| validations > 0.0) {
        builder.fact(&keys::RUN_PATIENCE_EPOCHS, (patience * every) as u64);
    }
    if let Some(seed) = at("/seed").and_then(Value::as_u64) {
        builder.fact(&keys::RUN_SEED, json!(seed));
    }
}

/// What recipes of one stage declare, whose sections `optim` and `ema` are the same in all of them.
fn declare_one_stage(config: &Value, builder: &mut RunBuilder) {
    let at = |path: &str| config.pointer(path);
    let number = |path: &str| at(path).and_then(Value::as_f64);
    let declared = [
        ("/optim/kind", &keys::OPTIM_NAME),
        ("/optim/learning_rate", &keys::OPTIM_LEARNING_RATE),
        ("/optim/weight_decay", &keys::OPTIM_WEIGHT_DECAY),
        ("/optim/momentum", &keys::OPTIM_MOMENTUM),
        ("/optim/batch", &keys::OPTIM_BATCH_SIZE),
        ("/optim/accumulate", &keys::OPTIM_ACCUMULATION),
        ("/optim/warmup_epochs", &keys::SCHEDULE_WARMUP_EPOCHS),
        ("/optim/decay", &keys::SCHEDULE_NAME),
        ("/optim/epochs", &keys::RUN_EPOCHS),
        ("/optim/freeze_epochs", &keys::MODEL_FREEZE_EPOCHS),
        ("/loss/drw_start", &keys::LOSS_REWEIGHT_EPOCH),
        ("/seed", &keys::RUN_SEED),
    ];
    for (path, key) in declared {
        if let Some(value) = at(path) {
            builder.fact(key, value.clone());
        }
    }
    // Here 0 stands for what is not done at all, or not given.
    let positive = |path: &str| number(path).filter(|&number| number > 0.0);
    if let Some(norm) = positive("/optim/clip_norm") {
        builder.fact(&keys::OPTIM_CLIP_NORM, norm);
    }
    if let Some(decay) = positive("/ema/decay") {
        builder.fact(&keys::EMA_DECAY, decay);
        let warmup = at("/ema/warmup").and_then(Value::as_bool);
        builder.fact(&keys::EMA_WARMUP, warmup.unwrap_or(true));
    }
    if let Some(path) = at("/model/pretrained").and_then(Value::as_str) {
        builder.fact(&keys::MODEL_PRETRAINED, !path.is_empty());
    }
    if let Some(least) = positive("/model/pretrained_match") {
        builder.fact(&keys::MODEL_LOAD_MINIMUM, least);
    }
    if let Some(sampler) = at("/data/sampler").and_then(Value::as_str) {
        builder.fact(&keys::DATA_BALANCED_SAMPLER, sampler == "balanced");
    }
    let scales = at("/optim/rate_scale").and_then(Value::as_object);
    for (group, scale) in scales.into_iter().flatten() {
        if let (Some(rate), Some(scale)) = (positive("/optim/learning_rate"), scale.as_f64()) {
            builder.facts().set(keys::OPTIM_LEARNING_RATE.group(group), rate * scale);
        }
    }
    let terms = at("/loss").and_then(Value::as_object);
    for (term, settings) in terms.into_iter().flatten() {
        if let Some(weight) = settings.get("weight").and_then(Value::as_f64) {
            builder.facts().set(keys::LOSS_WEIGHT.group(term), weight);
        }
    }
    let every = number("/evaluate/every_epochs").unwrap_or(1.0);
    if let Some(steps) = positive("/optim/steps_per_epoch") {
        builder.fact(&keys::RUN_STEPS_PER_EPOCH, steps as u64);
        builder.fact(&keys::EVALUATE_INTERVAL, (steps * every) as u64);
    }
    if let Some(patience) = positive("/early_stopping/patience") {
        builder.fact(&keys::RUN_PATIENCE_EPOCHS, (patience * every) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines::tests::{logged, read as read_files, recognised, survives};

    const SIGNALS_TEXT: &str = concat!(
        r#"{"step":1,"epoch":0,"time":0.5,"loss/total":0.7,"stage/index":0}"#,
        "\n",
        r#"{"step":2,"epoch":0,"time":1.5,"loss/total":NaN,"grad/norm":Infinity,"mine/own":3}"#,
        "\n",
        r#"{"step":2,"epoch":0,"time":1.6,"val/f1":null,"text":"x"}"#,
        "\nrubbish\n",
        r#"{"step":-3,"loss/total":1}"#,
        "\n",
        r#"{"step":3,"epoch":1,"time":2.5,"loss/total":0.5,"stage/index":1}"#,
        "\n",
        r#"{"step":4,"epo"#,
    );

    #[test]
    fn records_are_read_and_what_cannot_be_read_is_noted() {
        let run = read_files(&FORMAT, &[("signals.jsonl", SIGNALS_TEXT)]).expect("readable");
        let loss = run.trace.get("loss/total").expect("logged");
        assert_eq!(loss.steps(), [1, 2, 3]);
        assert!(loss.at(2).is_some_and(f64::is_nan));
        assert_eq!(run.trace.last("grad/norm"), Some((2, f64::INFINITY)));
        assert!(run.trace.get("val/f1").is_some_and(|f1| f1.at(2).is_some_and(f64::is_nan)));
        assert_eq!(run.unmapped, ["mine/own"]);
        assert_eq!(logged(&run, "mine/own"), [(2, 3.0)]);
        assert_eq!(run.trace.epochs().iter().collect::<Vec<_>>(), [(1, 0.0), (2, 0.0), (3, 1.0)]);
        assert_eq!(run.trace.times().values(), [0.5, 1.5, 2.5]);
        assert_eq!(run.notes.len(), 2, "{:?}", run.notes);
        assert_eq!(run.facts.get(keys::RUN_FINISHED.name), None, "nothing beside it says so");
    }

    #[test]
    fn only_the_file_of_that_name_is_a_run() {
        assert_eq!(recognised(&FORMAT, "a/signals.jsonl", SIGNALS_TEXT), Some(Certainty::Sure));
        assert_eq!(recognised(&FORMAT, "a/other.jsonl", SIGNALS_TEXT), None);
        assert_eq!(recognised(&FORMAT, "a/signals.jsonl", "{\"step\":1}\n"), None);
        assert_eq!(recognised(&FORMAT, "a/signals.jsonl", ""), None);
        let events = "{\"step\":1,\"epoch\":0,\"time\":1,\"kind\":\"stop\",\"message\":\"x\"}\n";
        assert_eq!(recognised(&FORMAT, "a/events.jsonl", events), None);
    }

    #[test]
    fn documents_beside_it_become_facts() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("signals.jsonl", SIGNALS_TEXT);
        write(
            "run.json",
            r#"{"seed":7,"steps_planned":480,"class_counts":{"-1":10,"1":30,"0":60},
                "parameter_counts":{"head":9,"encoder":1},"schedule_horizons":{"stage2/optim/learning_rate":240}}"#,
        );
        write(
            "config.toml",
            "recipe = \"two-stage\"\n[evaluate]\nevery_epochs = 2\n[early_stopping]\npatience = 3\n\
             [loss]\ndice = 0.3\n[stage1]\nlearning_rate = 1e-3\nepochs = 5\n\
             [stage2]\ncheckpoint = \"\"\nlearning_rate = 1e-5\nencoder_rate_scale = 0.5\nepochs = 10\n\
             steps_per_epoch = 20\nclip_norm = 0.0\nema_decay = 0.99\nwarmup_epochs = 1\n",
        );
        let read = || {
            let mut builder = RunBuilder::new();
            super::read(&[Input::file(folder.path().join("signals.jsonl"))], &mut builder).expect("readable");
            builder.finish("run", FORMAT.id).facts
        };
        let facts = read();
        assert_eq!(facts.boolean(keys::RUN_FINISHED.name), Some(false));
        assert_eq!(facts.integer(keys::RUN_STEPS.name), Some(480));
        assert_eq!(facts.integer(keys::RUN_SEED.name), Some(7));
        assert_eq!(facts.integer(keys::RUN_EPOCHS.name), Some(15));
        assert_eq!(facts.integer(keys::RUN_PATIENCE_EPOCHS.name), Some(6));
        assert_eq!(facts.numbers(keys::DATA_CLASS_COUNTS.name), Some(vec![60.0, 30.0]));
        assert_eq!(facts.number(keys::DATA_IGNORED_SHARE.name), Some(0.1));
        assert_eq!(facts.number(keys::DATA_PREVALENCE.name), Some(30.0 / 90.0));
        assert_eq!(facts.integer(keys::MODEL_PARAMETERS.name), Some(10));
        assert_eq!(facts.integer("schedule.horizon_steps.stage2/optim/learning_rate"), Some(240));
        assert_eq!(facts.number(keys::OPTIM_LEARNING_RATE.name), Some(1e-5));
        assert_eq!(facts.number("optim.learning_rate.encoder"), Some(0.5e-5));
        assert_eq!(facts.get(keys::OPTIM_CLIP_NORM.name), None, "0 is no clipping");
        assert_eq!(facts.number(keys::EMA_DECAY.name), Some(0.99));
        assert_eq!(facts.integer(keys::EVALUATE_INTERVAL.name), Some(40));
        assert_eq!(facts.number("declared.stage1.learning_rate"), Some(1e-3));
        write("summary.json", r#"{"status":"failed","reason":"out of memory"}"#);
        let facts = read();
        assert_eq!(facts.boolean(keys::RUN_FINISHED.name), Some(false));
        assert_eq!(facts.text(keys::RUN_CRASH.name), Some("out of memory"));
        write("summary.json", r#"{"status":"finished"}"#);
        write("config.toml", "not = [toml");
        assert_eq!(read().boolean(keys::RUN_FINISHED.name), Some(true));
    }

    #[test]
    fn settings_of_one_stage_become_facts_whatever_the_recipe() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("signals.jsonl", SIGNALS_TEXT);
        write(
            "config.toml",
            "recipe = \"volume-classification\"\nseed = 3\n[evaluate]\nevery_epochs = 2\n[data]\nsampler = \"natural\"\n\
             [model]\npretrained = \"r50.pth\"\n[loss]\ndrw_start = 25\n[loss.dice]\nweight = 0.5\n\
             [optim]\nkind = \"adam\"\nepochs = 60\nbatch = 6\naccumulate = 2\nlearning_rate = 1e-4\nclip_norm = 0.0\n\
             steps_per_epoch = 10\ndecay = \"cosine\"\n[optim.rate_scale]\nbackbone = 1.0\nhead = 10.0\n\
             [ema]\ndecay = 0.995\n[early_stopping]\npatience = 4\n",
        );
        let mut builder = RunBuilder::new();
        super::read(&[Input::file(folder.path().join("signals.jsonl"))], &mut builder).expect("readable");
        let facts = builder.finish("run", FORMAT.id).facts;
        assert_eq!(facts.text(keys::OPTIM_NAME.name), Some("adam"));
        assert_eq!(facts.number("optim.learning_rate.head"), Some(1e-3));
        assert_eq!(facts.number(keys::LOSS_REWEIGHT_EPOCH.name), Some(25.0));
        assert_eq!(facts.boolean(keys::MODEL_PRETRAINED.name), Some(true));
        assert_eq!(facts.boolean(keys::DATA_BALANCED_SAMPLER.name), Some(false));
        assert_eq!(facts.number("loss.weight.dice"), Some(0.5));
        assert_eq!(facts.get(keys::OPTIM_CLIP_NORM.name), None, "0 is no clipping");
        assert_eq!(facts.integer(keys::RUN_PATIENCE_EPOCHS.name), Some(8));
        assert_eq!(facts.integer(keys::EVALUATE_INTERVAL.name), Some(20));
        assert_eq!(facts.number(keys::EMA_DECAY.name), Some(0.995));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        survives(&FORMAT, "signals.jsonl", SIGNALS_TEXT);
    }
}
