//! From the configuration names of other frameworks to our keys.

use serde_json::{Number, Value};
use trimtab_signals::{Facts, keys};

/// Most declared values kept under their own names.
const LIMIT: usize = 2_000;
/// Longest text kept, in characters.
const LONGEST_TEXT: usize = 500;
/// Deepest nesting that is followed.
const DEEPEST: usize = 32;
/// Where everything is kept under its own name.
const DECLARED: &str = "declared.";

/// Declares a value under our key for it, where there is one, and under `declared.<logged>`. Tables and lists are flattened.
///
/// What our key has already stays: the exact facts of a reader, and of a table's values the least nested one.
pub fn declare(facts: &mut Facts, logged: &str, value: &Value) {
    let mut room = LIMIT.saturating_sub(facts.iter().filter(|(key, _)| key.starts_with(DECLARED)).count());
    // Level by level, so that the least nested comes first; no recursion, as the depth is not ours to choose.
    let mut level = vec![(logged.to_owned(), value)];
    for _ in 0..DEEPEST {
        let mut next = Vec::new();
        for (path, value) in level {
            if room == 0 {
                return;
            }
            map(facts, &path, value);
            match value {
                Value::Object(table) => {
                    next.extend(
                        table.iter().take(room).map(|(part, inner)| (format!("{path}.{part}"), inner)),
                    );
                }
                Value::Array(list) => {
                    next.extend(
                        list.iter().take(room).enumerate().map(|(at, inner)| (format!("{path}.{at}"), inner)),
                    );
                }
                plain => {
                    let path: String = path.chars().take(LONGEST_TEXT).collect();
                    facts.set(format!("{DECLARED}{path}"), cut(plain));
                    room -= 1;
                }
            }
            if next.len() > LIMIT {
                next.truncate(LIMIT);
            }
        }
        level = next;
    }
}

fn cut(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.chars().take(LONGEST_TEXT).collect()),
        other => other.clone(),
    }
}

/// Sets our key for a declared value, where there is one and it is free.
fn map(facts: &mut Facts, path: &str, value: &Value) {
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value
            && facts.get(key).is_none()
        {
            facts.set(key, value);
        }
    };
    // What a run is compared with is for its user to say.
    if path.split('.').any(|part| part == "reference") {
        return;
    }
    if let Some(key) = keys::of(path)
        && let Some(value) = of_kind(key.kind, value)
    {
        return set(path, Some(value));
    }

    let parts: Vec<String> = path.split(['.', '/']).map(normal).collect();
    // Weights & Biases wraps each value in a table.
    let parts = match parts.as_slice() {
        [rest @ .., last] if last == "value" && !rest.is_empty() => rest,
        all => all,
    };
    let Some((last, above)) = parts.split_last() else { return };
    let above: Vec<&str> = above.iter().map(String::as_str).collect();
    let under = |words: &[&str]| above.iter().any(|part| words.iter().any(|word| has_word(part, word)));
    let discriminator = under(&["d", "disc", "discriminator", "critic"]);

    // Settings of something else that has the same names.
    if under(&["test", "val", "valid", "validation", "eval", "predict", "infer", "inference"]) {
        return;
    }
    match last.as_str() {
        "lr"
        | "learning_rate"
        | "base_lr"
        | "initial_lr"
        | "init_lr"
        | "lr0"
        | "base_learning_rate"
        | "initial_learning_rate"
        | "learningrate" => {
            let key = if discriminator { keys::GAN_LEARNING_RATE } else { keys::OPTIM_LEARNING_RATE };
            if !under(&["scheduler", "schedule", "ema", "group", "groups", "paramwise"]) {
                set(key.name, positive(value));
            }
        }
        "lr_d" | "d_lr" | "disc_lr" | "lr_disc" | "discriminator_lr" | "lr_discriminator"
        | "learning_rate_d" | "d_learning_rate" => set(keys::GAN_LEARNING_RATE.name, positive(value)),
        "lr_backbone" | "backbone_lr" | "lr_encoder" | "encoder_lr" | "lr_decoder" | "decoder_lr"
        | "lr_head" | "head_lr" => {
            let group = last.trim_start_matches("lr_").trim_end_matches("_lr");
            set(&keys::OPTIM_LEARNING_RATE.group(group), positive(value));
        }
        "batch_size"
        | "train_batch_size"
        | "per_device_train_batch_size"
        | "per_gpu_train_batch_size"
        | "train_micro_batch_size_per_gpu"
        | "micro_batch_size"
        | "batch_size_per_gpu"
        | "samples_per_gpu"
        | "batch"
        | "batchsize"
        | "bs"
        | "train_bs" => set(keys::OPTIM_BATCH_SIZE.name, at_least_one(value)),
        "gradient_accumulation_steps"
        | "accumulate_grad_batches"
        | "accumulation_steps"
        | "grad_accumulation_steps"
        | "grad_accum_steps"
        | "grad_accum"
        | "accum_iter"
        | "accumulative_counts"
        | "iter_size" => set(keys::OPTIM_ACCUMULATION.name, at_least_one(value)),
        "world_size" | "num_gpus" | "n_gpu" | "n_gpus" | "ngpus" | "num_devices" | "gpus" | "gpu_ids"
        | "devices" => {
            set(keys::OPTIM_DEVICES.name, devices(value));
        }
        "weight_decay" | "wd" | "l2" | "l2_reg" | "weight_decay_rate" if !under(&["ema"]) => {
            set(keys::OPTIM_WEIGHT_DECAY.name, number(value));
        }
        "momentum" | "beta1" | "adam_beta1" | "sgd_momentum"
            if !under(&["norm", "bn", "ema", "teacher", "batchnorm"]) =>
        {
            set(keys::OPTIM_MOMENTUM.name, number(value));
        }
        "one_minus_beta1" => set(keys::OPTIM_MOMENTUM.name, one_minus(value)),
        "beta2" | "adam_beta2" => set(keys::OPTIM_BETA2.name, number(value)),
        "one_minus_beta2" => set(keys::OPTIM_BETA2.name, one_minus(value)),
        "betas" | "adam_betas" => {
            if let Some([first, second]) = pair(value) {
                set(keys::OPTIM_MOMENTUM.name, json(first));
                set(keys::OPTIM_BETA2.name, json(second));
            }
        }
        "cycles" | "num_cycles" | "n_cycles" | "lr_cycles" => {
            set(keys::SCHEDULE_CYCLES.name, at_least_one(value))
        }
        "warmup_steps" | "num_warmup_steps" | "warmup_iters" | "warmup_iterations" | "warm_up_steps"
        | "lr_warmup_steps" | "warmup_updates"
            if !under(&["ema"]) =>
        {
            set(keys::SCHEDULE_WARMUP_STEPS.name, count(value));
        }
        "warmup_epochs" | "warmup_epoch" | "lr_warmup_epochs" | "warm_up_epochs" | "num_warmup_epochs"
            if !under(&["ema"]) =>
        {
            set(keys::SCHEDULE_WARMUP_EPOCHS.name, number(value).filter(not_negative));
        }
        "max_steps" | "total_steps" | "max_iters" | "max_iter" | "num_iterations" | "max_iterations"
        | "total_iters" | "total_iterations" | "num_train_steps" | "num_training_steps"
        | "max_train_steps" | "max_global_steps" | "train_steps" | "train_iters"
            if !under(&["scheduler", "schedule"]) =>
        {
            set(keys::RUN_STEPS.name, at_least_one(value));
        }
        "epochs" | "num_epochs" | "max_epochs" | "num_train_epochs" | "n_epochs" | "nepochs"
        | "total_epochs" | "max_epoch" | "nb_epochs" | "nb_epoch"
            if !under(&["scheduler", "schedule"]) =>
        {
            set(keys::RUN_EPOCHS.name, at_least_one(value));
        }
        "steps_per_epoch" | "iters_per_epoch" | "num_iterations_per_epoch" => {
            set(keys::RUN_STEPS_PER_EPOCH.name, at_least_one(value));
        }
        "seed" | "manual_seed" | "rng_seed" | "random_seed" | "random_state" => {
            set(keys::RUN_SEED.name, count(value));
        }
        "early_stopping_patience" | "early_stop_patience" | "es_patience" => {
            set(keys::RUN_PATIENCE_EPOCHS.name, at_least_one(value));
        }
        // A patience below anything else may be that of a schedule.
        "patience"
            if above.is_empty() || above.iter().all(|part| ["config", "args", "hparams"].contains(part)) =>
        {
            set(keys::RUN_PATIENCE_EPOCHS.name, at_least_one(value));
        }
        "patience" if above.last().is_some_and(|part| part.replace('_', "").starts_with("earlystop")) => {
            set(keys::RUN_PATIENCE_EPOCHS.name, at_least_one(value));
        }
        // None and 0 both mean that nothing is clipped.
        "clip_grad_norm" | "max_grad_norm" | "gradient_clip_val" | "gradient_clip_norm" | "grad_clip"
        | "grad_clip_norm" | "gradient_clip" | "grad_norm_clip" | "clip_grad" | "clip_norm" => {
            set(keys::OPTIM_CLIP_NORM.name, positive(value));
        }
        "max_norm" if above.last().is_some_and(|part| part.contains("clip")) => {
            set(keys::OPTIM_CLIP_NORM.name, positive(value));
        }
        "label_smoothing" | "label_smoothing_factor" | "label_smooth" | "smoothing" => {
            let key = if discriminator { keys::GAN_LABEL_SMOOTHING } else { keys::OPTIM_LABEL_SMOOTHING };
            set(key.name, number(value).filter(not_negative));
        }
        "ema_decay" | "model_ema_decay" | "teacher_decay" => set(keys::EMA_DECAY.name, positive(value)),
        "decay" if above.last().is_some_and(|part| has_word(part, "ema")) => {
            set(keys::EMA_DECAY.name, positive(value));
        }
        "num_classes" | "nclass" | "n_classes" | "nb_classes" | "num_labels" | "n_class" | "nclasses"
        | "num_class" => {
            set(keys::DATA_CLASSES.name, at_least_one(value));
        }
        "ignore_index" | "ignore_label" => set(keys::DATA_IGNORE_LABEL.name, number(value)),
        "num_train_samples" | "n_train_samples" | "train_samples" | "num_train_examples" => {
            set(keys::DATA_TRAIN_SAMPLES.name, at_least_one(value));
        }
        "num_val_samples" | "n_val_samples" | "num_validation_samples" => {
            set(keys::DATA_VAL_SAMPLES.name, at_least_one(value));
        }
        "freeze_epochs" | "freeze_backbone_epochs" | "num_freeze_epochs" | "unfreeze_epoch" => {
            set(keys::MODEL_FREEZE_EPOCHS.name, number(value).filter(not_negative));
        }
        "pretrained" | "pretrained_path" | "pretrained_weights" | "use_pretrained" | "pretrained_model" => {
            set(keys::MODEL_PRETRAINED.name, pretrained(value));
        }
        // Nothing loaded here does not say that nothing is pretrained: the backbone may be.
        "load_from" | "init_checkpoint" => {
            set(keys::MODEL_PRETRAINED.name, pretrained(value).filter(|yes| yes == &Value::Bool(true)));
        }
        "weights" if above.last() == Some(&"model") => {
            set(keys::MODEL_PRETRAINED.name, pretrained(value));
        }
        "class_weights" | "class_weight" => set(keys::LOSS_CLASS_WEIGHTS.name, numbers(value)),
        "conf_thresh" | "conf_threshold" | "confidence_threshold" | "p_cutoff" | "pseudo_threshold" => {
            set(keys::SSL_THRESHOLD.name, number(value));
        }
        "eval_steps" | "eval_interval" => set(keys::EVALUATE_INTERVAL.name, at_least_one(value)),
        "optimizer" | "optimizer_name" | "optimizer_type" | "optim" | "opt" => {
            set(keys::OPTIM_NAME.name, optimizer(value));
        }
        "type" | "name" | "class_name" | "_class_name" | "_target_" | "policy" => {
            let Some(owner) = above.iter().rev().find(|part| part.parse::<usize>().is_err()) else { return };
            if ["optimizer", "optim", "opt"].contains(owner) {
                set(keys::OPTIM_NAME.name, optimizer(value));
            } else if ["scheduler", "lr_scheduler", "param_scheduler", "lr_config", "lr_schedule"]
                .contains(owner)
            {
                // Of a list of schedulers the linear one is the warm-up before the other.
                let listed = above.last() != Some(owner);
                set(keys::SCHEDULE_NAME.name, schedule(value).filter(|name| !(listed && name == "linear")));
            }
        }
        "lr_scheduler_type" | "lr_scheduler" | "scheduler" | "lr_schedule" | "lr_policy" | "sched"
        | "schedule" => {
            set(keys::SCHEDULE_NAME.name, schedule(value));
        }
        _ => {}
    }
}

/// `numTrainEpochs`, `NUM_TRAIN-EPOCHS` and `--num_train_epochs` are one name.
fn normal(part: &str) -> String {
    let mut name = String::with_capacity(part.len());
    let mut before_was_lower = false;
    for c in part.trim_start_matches('-').chars() {
        if c.is_uppercase() && before_was_lower {
            name.push('_');
        }
        before_was_lower = c.is_lowercase();
        if c == '-' || c == ' ' { name.push('_') } else { name.extend(c.to_lowercase()) }
    }
    name
}

fn has_word(part: &str, word: &str) -> bool {
    part.split('_').any(|one| one == word)
}

/// A value as our key has it: the declared text `"1e-4"` of a number is that number.
fn of_kind(kind: &str, value: &Value) -> Option<Value> {
    match kind {
        "number" => number(value),
        "count" => count(value),
        "flag" => flag(value),
        "text" => text(value).map(|text| cut(&Value::String(text.to_owned()))),
        "list" => value.is_array().then(|| value.clone()),
        _ => value.is_object().then(|| value.clone()),
    }
}

fn float(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

fn json(number: f64) -> Option<Value> {
    Number::from_f64(number).map(Value::Number)
}

fn number(value: &Value) -> Option<Value> {
    if value.is_number() { Some(value.clone()) } else { json(float(value)?) }
}

fn positive(value: &Value) -> Option<Value> {
    number(value).filter(|number| number.as_f64().is_some_and(|number| number > 0.0))
}

fn not_negative(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number >= 0.0)
}

fn one_minus(value: &Value) -> Option<Value> {
    // To twelve digits: `1 - .1` is meant to be .9.
    json(((1.0 - float(value)?) * 1e12).round() / 1e12)
}

/// A whole number, also one written as `2.0` or `"2"`. Negative ones, which mean "not set" or "no end", are none.
fn count(value: &Value) -> Option<Value> {
    if let Some(whole) = value.as_u64() {
        return Some(whole.into());
    }
    let number = float(value)?;
    // Up to 2^53 a float is exact.
    (number >= 0.0 && number.fract() == 0.0 && number <= 9_007_199_254_740_992.0)
        .then(|| Value::from(number as u64))
}

fn at_least_one(value: &Value) -> Option<Value> {
    count(value).filter(|count| count.as_u64() != Some(0))
}

fn devices(value: &Value) -> Option<Value> {
    match value {
        Value::Array(list) if !list.is_empty() => Some(list.len().into()),
        other => at_least_one(other),
    }
}

/// A text that says something.
fn text(value: &Value) -> Option<&str> {
    let text = value.as_str()?.trim();
    let empty = ["", "none", "null", "auto", "default"].iter().any(|word| text.eq_ignore_ascii_case(word));
    (!empty).then_some(text)
}

fn flag(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) => Some(value.clone()),
        Value::String(text) if ["true", "yes", "on"].iter().any(|t| text.eq_ignore_ascii_case(t)) => {
            Some(true.into())
        }
        Value::String(text) if ["false", "no", "off"].iter().any(|t| text.eq_ignore_ascii_case(t)) => {
            Some(false.into())
        }
        Value::Number(number) if number.as_u64().is_some_and(|n| n < 2) => {
            Some((number.as_u64() == Some(1)).into())
        }
        _ => None,
    }
}

/// A flag, or the file or name that is loaded.
fn pretrained(value: &Value) -> Option<Value> {
    flag(value).or_else(|| match value {
        Value::Null => Some(false.into()),
        Value::String(_) => Some(text(value).is_some().into()),
        _ => None,
    })
}

fn numbers(value: &Value) -> Option<Value> {
    let numbers: Option<Vec<Value>> = value.as_array()?.iter().take(LIMIT).map(number).collect();
    numbers.filter(|numbers| !numbers.is_empty()).map(Value::Array)
}

/// Two numbers in a list, or in the text of a tuple: `(0.9, 0.98)`.
fn pair(value: &Value) -> Option<[f64; 2]> {
    let numbers: Vec<f64> = match value {
        Value::Array(list) => list.iter().take(3).map(float).collect::<Option<_>>()?,
        Value::String(text) => text
            .trim_matches(|c: char| "()[] ".contains(c))
            .split(',')
            .take(3)
            .map(|part| part.trim().parse().ok().filter(|number: &f64| number.is_finite()))
            .collect::<Option<_>>()?,
        _ => return None,
    };
    numbers.try_into().ok()
}

/// `torch.optim.AdamW`, `adamw_torch`, `OptimizerNames.ADAMW_HF` are all `adamw`.
fn optimizer(value: &Value) -> Option<Value> {
    let name = class(text(value)?);
    let name = name.split_once('_').map_or(name.as_str(), |(first, _)| first);
    (!name.is_empty()).then(|| name.into())
}

/// `CosineAnnealingLR`, `SchedulerType.COSINE` are `cosine`; `PolyLR` is `poly`.
fn schedule(value: &Value) -> Option<Value> {
    let name = class(text(value)?);
    let name = match ["cosine", "poly", "linear", "constant"].iter().find(|known| name.starts_with(**known)) {
        Some(known) => known,
        None => name.strip_suffix("lr").unwrap_or(&name).trim_end_matches('_'),
    };
    (!name.is_empty()).then(|| name.into())
}

/// The last part of a dotted name, in lower case and without what follows the name (`AdamW(lr=0.1)`).
fn class(text: &str) -> String {
    let name = text.split(['(', ' ', '<']).next().unwrap_or_default();
    name.rsplit('.').next().unwrap_or_default().to_lowercase().chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use trimtab_signals::Key;

    use super::*;

    fn check(logged: &str, value: Value, key: &Key, expected: Value) {
        let mut facts = Facts::new();
        declare(&mut facts, logged, &value);
        assert_eq!(facts.get(key.name), Some(&expected), "{logged} = {value}");
    }

    /// Nothing is declared but the value under its own name.
    fn stays(logged: &str, value: Value) {
        let mut facts = Facts::new();
        declare(&mut facts, logged, &value);
        let other: Vec<_> = facts.iter().filter(|(key, _)| !key.starts_with(DECLARED)).collect();
        assert!(other.is_empty(), "{logged} = {value}: {other:?}");
    }

    #[test]
    fn the_names_of_frameworks_are_known() {
        for lr in [
            "lr",
            "learning_rate",
            "base_lr",
            "initial_lr",
            "optimizer.lr",
            "optim_wrapper.optimizer.lr",
            "lr0",
            "SOLVER.BASE_LR",
            "args.lr",
            "hparams/learning_rate",
            "--lr",
            "learningRate",
        ] {
            check(lr, json!(0.01), &keys::OPTIM_LEARNING_RATE, json!(0.01));
        }
        for batch in [
            "batch_size",
            "train_batch_size",
            "per_device_train_batch_size",
            "data.samples_per_gpu",
            "batch",
            "train_dataloader.batch_size",
        ] {
            check(batch, json!(16), &keys::OPTIM_BATCH_SIZE, json!(16));
        }
        check("gradient_accumulation_steps", json!("2"), &keys::OPTIM_ACCUMULATION, json!(2));
        check("accumulate_grad_batches", json!(4), &keys::OPTIM_ACCUMULATION, json!(4));
        check("world_size", json!(8), &keys::OPTIM_DEVICES, json!(8));
        check("devices", json!([0, 1]), &keys::OPTIM_DEVICES, json!(2));
        check("wd", json!("1e-4"), &keys::OPTIM_WEIGHT_DECAY, json!(1e-4));
        check("momentum", json!(0.9), &keys::OPTIM_MOMENTUM, json!(0.9));
        check("one_minus_beta1", json!(0.1), &keys::OPTIM_MOMENTUM, json!(0.9));
        check("betas", json!([0.9, 0.95]), &keys::OPTIM_BETA2, json!(0.95));
        check("adam_betas", json!("(0.9, 0.98)"), &keys::OPTIM_BETA2, json!(0.98));
        check("adam_beta2", json!(0.999), &keys::OPTIM_BETA2, json!(0.999));
        check("num_warmup_steps", json!(500), &keys::SCHEDULE_WARMUP_STEPS, json!(500));
        check("warmup_epochs", json!(3.0), &keys::SCHEDULE_WARMUP_EPOCHS, json!(3.0));
        check("train_cfg.max_iters", json!(40000), &keys::RUN_STEPS, json!(40000));
        check("max_global_steps", json!(48000), &keys::RUN_STEPS, json!(48000));
        check("num_train_epochs", json!(3.0), &keys::RUN_EPOCHS, json!(3));
        check("rng_seed", json!(3417528384_u64), &keys::RUN_SEED, json!(3417528384_u64));
        check("randomness.seed", json!(0), &keys::RUN_SEED, json!(0));
        check("gradient_clip_val", json!("1.0"), &keys::OPTIM_CLIP_NORM, json!(1.0));
        check("optim_wrapper.clip_grad.max_norm", json!(35), &keys::OPTIM_CLIP_NORM, json!(35));
        check("label_smoothing_factor", json!(0.1), &keys::OPTIM_LABEL_SMOOTHING, json!(0.1));
        check("model_ema_decay", json!(0.9998), &keys::EMA_DECAY, json!(0.9998));
        check("ema.decay", json!(0.99), &keys::EMA_DECAY, json!(0.99));
        check("nclass", json!(21), &keys::DATA_CLASSES, json!(21));
        check("criterion.kwargs.ignore_index", json!(255), &keys::DATA_IGNORE_LABEL, json!(255));
        check("patience", json!(50), &keys::RUN_PATIENCE_EPOCHS, json!(50));
        check("early_stopping.patience", json!(5), &keys::RUN_PATIENCE_EPOCHS, json!(5));
        check("pretrained", json!("True"), &keys::MODEL_PRETRAINED, json!(true));
        check("pretrained", json!("None"), &keys::MODEL_PRETRAINED, json!(false));
        check("model.pretrained", json!("open-mmlab://resnet50"), &keys::MODEL_PRETRAINED, json!(true));
        check("class_weights", json!([1, "2.5"]), &keys::LOSS_CLASS_WEIGHTS, json!([1, 2.5]));
        check("optimizer", json!("AdamW"), &keys::OPTIM_NAME, json!("adamw"));
        check("optim", json!("adamw_torch_fused"), &keys::OPTIM_NAME, json!("adamw"));
        check("optimizer.type", json!("SGD"), &keys::OPTIM_NAME, json!("sgd"));
        check("optimizer._target_", json!("torch.optim.Adam"), &keys::OPTIM_NAME, json!("adam"));
        check("optimizer._class_name", json!("AdamW"), &keys::OPTIM_NAME, json!("adamw"));
        check("lr_scheduler_type", json!("SchedulerType.COSINE"), &keys::SCHEDULE_NAME, json!("cosine"));
        check("lr.value", json!(0.1), &keys::OPTIM_LEARNING_RATE, json!(0.1));
        check("discriminator.lr", json!(4e-4), &keys::GAN_LEARNING_RATE, json!(4e-4));
        check("lr_D", json!(4e-4), &keys::GAN_LEARNING_RATE, json!(4e-4));
        check("optim.learning_rate", json!("3e-4"), &keys::OPTIM_LEARNING_RATE, json!(3e-4));
    }

    #[test]
    fn what_has_the_same_name_and_is_something_else_stays() {
        stays("test_dataloader.batch_size", json!(1));
        stays("per_device_eval_batch_size", json!(8));
        stays("IMS_PER_BATCH", json!(16));
        stays("norm_cfg.momentum", json!(0.1));
        stays("lr_scheduler.patience", json!(3));
        stays("max_steps", json!(-1));
        stays("max_grad_norm", json!(0));
        stays("lr", json!("auto"));
        stays("batch_size", json!(2.5));
        stays("optimizer", json!("auto"));
        stays("class_weight", json!("balanced"));
        stays("load_from", json!(null));
        stays("reference.learning_rate", json!(0.1));
        stays("declared.reference.learning_rate", json!(0.1));
        stays("epoch", json!(3));
        stays("min_lr", json!(1e-6));
        stays("paramwise_cfg.custom_keys.head.lr_mult", json!(10));
    }

    #[test]
    fn a_table_is_flattened_and_its_least_nested_value_counts() {
        let mut facts = Facts::new();
        let config = json!({
            "optimizer": {"lr": 0.1, "type": "SGD"},
            "lr": 0.2,
            "param_scheduler": [{"type": "LinearLR"}, {"type": "PolyLR"}],
        });
        declare(&mut facts, "cfg", &config);
        assert_eq!(facts.number("optim.learning_rate"), Some(0.2));
        assert_eq!(facts.text("optim.name"), Some("sgd"));
        assert_eq!(facts.text("schedule.name"), Some("poly"));
        assert_eq!(facts.number("declared.cfg.optimizer.lr"), Some(0.1));
        assert_eq!(facts.text("declared.cfg.param_scheduler.1.type"), Some("PolyLR"));
        assert_eq!(facts.get("declared.cfg"), None);
    }

    #[test]
    fn what_a_reader_knows_exactly_stays() {
        let mut facts = Facts::new();
        facts.set("optim.learning_rate", 0.5);
        declare(&mut facts, "lr", &json!(0.1));
        assert_eq!(facts.number("optim.learning_rate"), Some(0.5));
    }

    #[test]
    fn the_amount_is_bounded() {
        let mut facts = Facts::new();
        let table: serde_json::Map<_, _> =
            (0..5_000).map(|at| (format!("key{at}"), json!("é".repeat(700)))).collect();
        declare(&mut facts, "wide", &Value::Object(table));
        assert_eq!(facts.iter().count(), LIMIT);
        assert!(
            facts.iter().all(|(_, value)| value.as_str().is_some_and(|t| t.chars().count() == LONGEST_TEXT))
        );
        declare(&mut facts, "more", &json!(1));
        assert_eq!(facts.iter().count(), LIMIT);

        let mut facts = Facts::new();
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        declare(&mut facts, "deep", &deep);
        assert_eq!(facts.iter().count(), 0);
    }
}
