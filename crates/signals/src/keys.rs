//! What a configuration can declare, under one name whatever the framework called it.
//!
//! The keys of [`Facts`](crate::Facts). A key may carry a group as its last part, where a quantity is declared for several
//! things: `optim.learning_rate.backbone`. Values keep the declared unit; a key that was not declared is absent.
//! The remedies of the doctor are changes of these keys.

/// One declared quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// `area.quantity`, lower case.
    pub name: &'static str,
    /// Kind of value: `number`, `count`, `text`, `flag`, `list`, `table`.
    pub kind: &'static str,
    /// One line.
    pub meaning: &'static str,
}

impl Key {
    /// The key for one group: `optim.learning_rate` and `head` give `optim.learning_rate.head`.
    pub fn group(&self, group: &str) -> String {
        format!("{}.{group}", self.name)
    }
}

/// The key that a name belongs to, grouped or not.
pub fn of(name: &str) -> Option<&'static Key> {
    ALL.iter()
        .copied()
        .find(|key| name.strip_prefix(key.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Declares the constants and [`ALL`] together.
macro_rules! keys {
    ($($constant:ident = $name:literal, $kind:literal, $meaning:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "` (", $kind, "): ", $meaning, ".")]
            pub const $constant: Key = Key { name: $name, kind: $kind, meaning: $meaning };
        )*

        /// Every key, area by area.
        pub const ALL: &[&Key] = &[$(&$constant),*];
    };
}

keys! {
    OPTIM_NAME = "optim.name", "text", "optimizer, lower case: adamw, sgd, …";
    OPTIM_LEARNING_RATE = "optim.learning_rate", "number", "base learning rate, before any schedule; by parameter group where grouped";
    OPTIM_WEIGHT_DECAY = "optim.weight_decay", "number", "weight decay";
    OPTIM_MOMENTUM = "optim.momentum", "number", "momentum, or the first moment's decay";
    OPTIM_BETA2 = "optim.beta2", "number", "decay of the second moment";
    OPTIM_BATCH_SIZE = "optim.batch_size", "count", "samples a forward pass on one device";
    OPTIM_ACCUMULATION = "optim.accumulation", "count", "forward passes an update";
    OPTIM_DEVICES = "optim.devices", "count", "devices that each take a batch";
    OPTIM_CLIP_NORM = "optim.clip_norm", "number", "bound of the gradient's global norm";
    OPTIM_LABEL_SMOOTHING = "optim.label_smoothing", "number", "label smoothing";

    SCHEDULE_NAME = "schedule.name", "text", "learning-rate schedule: constant, cosine, poly, linear, …";
    SCHEDULE_CYCLES = "schedule.cycles", "count", "times the learning rate falls; more than one means that it is raised again";
    SCHEDULE_WARMUP_STEPS = "schedule.warmup_steps", "count", "optimizer steps of learning-rate warm-up";
    SCHEDULE_WARMUP_EPOCHS = "schedule.warmup_epochs", "number", "epochs of learning-rate warm-up";
    SCHEDULE_HORIZON_STEPS = "schedule.horizon_steps", "count", "step at which a schedule ends; the group names the schedule";
    SCHEDULE_HORIZON_EPOCHS = "schedule.horizon_epochs", "number", "epoch at which a schedule ends; the group names the schedule";

    RUN_STEPS = "run.steps", "count", "optimizer steps planned in all";
    RUN_EPOCHS = "run.epochs", "count", "epochs planned in all";
    RUN_STEPS_PER_EPOCH = "run.steps_per_epoch", "count", "optimizer steps an epoch";
    RUN_PATIENCE_EPOCHS = "run.patience_epochs", "count", "early stopping: epochs without a better validation";
    RUN_SEED = "run.seed", "count", "random seed";
    RUN_FINISHED = "run.finished", "flag", "whether the log says that the run came to its end";
    RUN_CRASH = "run.crash", "text", "the error that ended the run, as logged";
    RUN_FRAMEWORK = "run.framework", "text", "training framework";

    DATA_CLASSES = "data.classes", "count", "classes";
    DATA_CLASS_COUNTS = "data.class_counts", "list", "samples (or voxels) of each class in the training set";
    DATA_TRAIN_SAMPLES = "data.train_samples", "count", "training samples";
    DATA_VAL_SAMPLES = "data.val_samples", "count", "validation samples";
    DATA_PREVALENCE = "data.prevalence", "number", "share of positives among the valid labels";
    DATA_BALANCED_SAMPLER = "data.balanced_sampler", "flag", "whether the sampler draws classes equally often";
    DATA_LABEL_VALUES = "data.label_values", "list", "label values that occur";
    DATA_IGNORE_LABEL = "data.ignore_label", "number", "label value that loss and metrics pass over";
    DATA_IGNORED_SHARE = "data.ignored_share", "number", "share of labels with the ignored value, 0 to 1";
    DATA_EMPTY_MASKS = "data.empty_masks", "count", "training masks without any foreground";
    DATA_MASKS = "data.masks", "count", "training masks";
    DATA_SHARED_SAMPLES = "data.shared_samples", "count", "samples that are both in training (labelled or not) and in validation";

    LOSS_CLASS_WEIGHTS = "loss.class_weights", "list", "weight of each class in the loss";
    LOSS_LABELS_ACCEPTED = "loss.labels_accepted", "list", "label values the loss is defined for";
    LOSS_REWEIGHT_EPOCH = "loss.reweight_epoch", "number", "epoch at which deferred re-weighting starts";
    LOSS_REWEIGHT_STEP = "loss.reweight_step", "count", "step at which deferred re-weighting starts";
    LOSS_WEIGHT = "loss.weight", "number", "declared weight of the loss term named by the group";

    MODEL_PARAMETERS = "model.parameters", "count", "parameters";
    MODEL_PRETRAINED = "model.pretrained", "flag", "whether training starts from pretrained weights";
    MODEL_LOADED_SHARE = "model.loaded_share", "number", "share of the model's weights found in the pretrained file, 0 to 1";
    MODEL_LOAD_MINIMUM = "model.load_minimum", "number", "least share of weights that must be found, 0 to 1";
    MODEL_FREEZE_EPOCHS = "model.freeze_epochs", "number", "epochs during which the backbone is frozen";
    MODEL_UNFREEZE_STEP = "model.unfreeze_step", "count", "step at which the backbone is unfrozen";

    EMA_DECAY = "ema.decay", "number", "decay of the averaged weights";
    EMA_WARMUP = "ema.warmup", "flag", "whether the decay rises from 0 with the number of updates";
    EMA_UPDATES = "ema.updates", "count", "updates of the averaged weights so far";

    SSL_THRESHOLD = "ssl.threshold", "number", "admission threshold of self-training";
    SSL_START_STEP = "ssl.start_step", "count", "step at which self-training starts";
    GAN_LEARNING_RATE = "gan.learning_rate", "number", "learning rate of the discriminator";
    GAN_INTERVAL = "gan.interval", "count", "steps between updates of the discriminator";
    GAN_LABEL_SMOOTHING = "gan.label_smoothing", "number", "smoothing of the discriminator's labels";

    EVALUATE_INTERVAL = "evaluate.interval", "count", "steps between evaluations";
    EVALUATE_PERFECT = "evaluate.perfect", "number", "what a perfect model scores on the metric named by the group";
    EVALUATE_REPRODUCED = "evaluate.reproduced", "number", "score of the saved checkpoint when evaluated again";
    EVALUATE_RECORDED = "evaluate.recorded", "number", "score recorded when the checkpoint was saved";

    REFERENCE_LEARNING_RATE = "reference.learning_rate", "number", "learning rate of a run known to work";
    REFERENCE_BATCH_SIZE = "reference.batch_size", "count", "its samples a forward pass on one device";
    REFERENCE_ACCUMULATION = "reference.accumulation", "count", "its forward passes an update";
    REFERENCE_DEVICES = "reference.devices", "count", "its devices";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_unique_and_no_key_hides_another() {
        let mut seen = HashSet::new();
        for key in ALL {
            assert!(seen.insert(key.name), "{} is declared twice", key.name);
            assert_eq!(of(key.name), Some(*key));
            assert_eq!(of(&key.group("a.b")), Some(*key));
            assert!(["number", "count", "text", "flag", "list", "table"].contains(&key.kind), "{}", key.name);
        }
        assert_eq!(of("optim.learning_rates"), None);
    }
}
