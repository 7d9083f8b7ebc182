//! The registry: one line a rule. Each is a file here, with its page beside it.

/// Declares the modules and the list of rules together, so that neither can lack what the other has.
macro_rules! rules {
    ($($name:ident,)*) => {
        $(mod $name;)*

        /// Every rule, in order of its id.
        pub static RULES: &[&dyn crate::rule::Rule] = &[$(&$name::RULE),*];
    };
}

rules! {
    all_negative_collapse,
    at_trivial_floor,
    averaged_weights_lag,
    best_not_last,
    checkpoint_does_not_reproduce,
    class_weights_extreme,
    clipping_always,
    data_stall,
    declared_not_effective,
    degenerate_labels,
    discriminator_won,
    double_balancing,
    expert_collapse,
    exploding_gradient,
    exploding_loss,
    group_rate_lost,
    ignored_label_mass,
    inert_loss_term,
    label_out_of_range,
    loss_exactly_zero,
    loss_term_outweighs,
    metric_collapse,
    never_learned,
    non_finite_loss,
    oscillation,
    overfitting,
    plateau,
    prevalence_mismatch,
    rate_too_high,
    rate_too_low,
    repeated_batches,
    reweighting_never_started,
    reweighting_shock,
    same_rate_for_head_and_backbone,
    schedule_horizon_mismatch,
    second_epoch_drop,
    self_training_admits_all,
    self_training_dead,
    split_leak,
    train_val_gap,
    truncated_run,
    unlearning,
    vanishing_gradient,
    warmup_inactive,
    weights_not_loaded,
    weights_shrinking,
}

/// The rule of an id.
pub fn by_id(id: &str) -> Option<&'static dyn crate::rule::Rule> {
    RULES.iter().copied().find(|rule| rule.meta().id == id)
}
