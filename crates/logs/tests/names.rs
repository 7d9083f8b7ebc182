//! Real names and the signals they become, and the page that shows them. `TRIMTAB_BLESS=1` rewrites the page.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use trimtab_logs::vocabulary::map;
use trimtab_signals::names;

/// Names that are logged together by one program, each with its signal; empty where it stays unmapped.
type Examples = (&'static str, &'static [(&'static str, &'static str)]);

const EXAMPLES: &[Examples] = &[
    (
        "Keras",
        &[
            ("epoch", ""),
            ("loss", "loss/total"),
            ("acc", "train/accuracy"),
            ("updated_mean_io_u", "train/miou"),
            ("val_loss", "val/loss"),
            ("val_acc", "val/accuracy"),
            ("val_updated_mean_io_u", "val/miou"),
            ("lr", "optim/learning_rate"),
        ],
    ),
    (
        "Keras, several metrics",
        &[
            ("binary_accuracy", "train/accuracy"),
            ("val_binary_accuracy", "val/accuracy"),
            ("val_auc", "val/auc"),
            ("auc", "train/auc"),
            ("dice_coef", "train/dice"),
            ("val_dice_coef", "val/dice"),
            ("mae", "train/metric/mae"),
            ("val_mae", "val/metric/mae"),
            ("val_mean_squared_error", "val/metric/mean_squared_error"),
            ("val_top_k_categorical_accuracy", "val/metric/top_k_categorical_accuracy"),
            ("learning_rate", "optim/learning_rate"),
        ],
    ),
    (
        "Keras, several outputs",
        &[
            ("loss", "loss/total"),
            ("train_loss", "train/loss"),
            ("pred_intensity_loss", "loss/term/pred_intensity_loss"),
            ("trimmed_obj_loss", "loss/term/trimmed_obj_loss"),
            ("intensity_scaler_inv_loss", ""),
            ("val_loss", "val/loss"),
            ("val_pred_intensity_loss", "val/metric/pred_intensity_loss"),
            ("val_trimmed_obj_loss", "val/metric/trimmed_obj_loss"),
            ("val_intensity_scaler_inv_loss", ""),
        ],
    ),
    (
        "Keras, to TensorBoard",
        &[
            ("train/epoch_loss", "loss/total"),
            ("train/epoch_accuracy", "train/accuracy"),
            ("train/epoch_learning_rate", "optim/learning_rate"),
            ("val/epoch_loss", "val/loss"),
            ("val/epoch_accuracy", "val/accuracy"),
            ("val/evaluation_loss_vs_iterations", ""),
        ],
    ),
    ("Keras, no validation", &[("loss", "loss/total"), ("accuracy", "train/accuracy")]),
    (
        "Lightning",
        &[
            ("epoch", ""),
            ("step", ""),
            ("train_loss_step", "loss/total"),
            ("train_loss_epoch", "train/loss"),
            ("train_acc_step", ""),
            ("train_acc_epoch", "train/accuracy"),
            ("val_loss_epoch", "val/loss"),
            ("val_acc", "val/accuracy"),
            ("lr-AdamW", "optim/learning_rate"),
            ("lr-AdamW/pg1", "optim/learning_rate/pg1"),
            ("lr-AdamW-momentum", ""),
            ("grad_2.0_norm_total", "grad/norm"),
            ("grad_2.0_norm/layer4.weight", "grad/norm/layer4_weight"),
            ("valid_MulticlassF1Score", "val/f1/multiclass"),
            ("test_loss", "test/loss"),
            ("test_acc", "test/metric/accuracy"),
        ],
    ),
    (
        "Lightning, plain",
        &[("train_loss", "loss/total"), ("val_acc", "val/accuracy"), ("train_acc", "train/accuracy")],
    ),
    (
        "TensorBoard",
        &[
            ("Loss/Train", "loss/total"),
            ("Loss/Val", "val/loss"),
            ("AUC/Train", "train/auc"),
            ("AUC/Val", "val/auc"),
            ("Accuracy/Train", "train/accuracy"),
            ("Accuracy/Val", "val/accuracy"),
            ("Learning_Rate", "optim/learning_rate"),
        ],
    ),
    (
        "TensorBoard, other words",
        &[
            ("loss_train", "loss/total"),
            ("loss/validation", "val/loss"),
            ("accuracy/validation", "val/accuracy"),
            ("Dice/test", "test/metric/dice"),
        ],
    ),
    (
        "TensorBoard, logged by step and by epoch",
        &[
            ("train_loss_logs", "loss/total"),
            ("train_loss", "train/loss"),
            ("train_auc", "train/auc"),
            ("val_loss", "val/loss"),
            ("test_auc", "test/metric/auc"),
        ],
    ),
    (
        "Hugging Face",
        &[
            ("epoch", ""),
            ("step", ""),
            ("loss", "loss/total"),
            ("grad_norm", "grad/norm"),
            ("learning_rate", "optim/learning_rate"),
            ("eval_loss", "val/loss"),
            ("eval_wer", "val/metric/wer"),
            ("eval_accuracy", "val/accuracy"),
            ("eval_rougeL", "val/metric/rougel"),
            ("eval_runtime", "time/evaluate_seconds"),
            ("eval_samples_per_second", ""),
            ("eval_steps_per_second", ""),
            ("train_loss", ""),
            ("train_runtime", ""),
            ("train_samples_per_second", ""),
            ("train_steps_per_second", ""),
            ("total_flos", ""),
        ],
    ),
    (
        "Hugging Face, segmentation and text",
        &[
            ("eval_mean_iou", "val/miou"),
            ("eval_mean_accuracy", "val/balanced_accuracy"),
            ("eval_overall_accuracy", "val/accuracy"),
            ("eval_matthews_correlation", "val/metric/matthews_correlation"),
            ("eval_exact_match", "val/metric/exact_match"),
            ("eval_f1", "val/f1"),
            ("eval_gen_len", ""),
            ("eval_perplexity", "val/metric/perplexity"),
            ("eval_test_loss", "test/loss"),
            ("eval_train_accuracy", "train/accuracy"),
        ],
    ),
    (
        "Weights & Biases",
        &[
            ("_step", ""),
            ("_runtime", ""),
            ("_timestamp", ""),
            ("train/epoch_loss", "train/loss"),
            ("train/batch_loss", "loss/total"),
            ("val/epoch_loss", "val/loss"),
            ("train/epoch_acc", "train/accuracy"),
            ("max_val_acc", ""),
            ("best_val_loss", ""),
            ("epoch_time_sec", ""),
            ("throughput_images_per_sec", ""),
            ("_wandb/runtime", ""),
            ("gpu.0.memory", ""),
        ],
    ),
    (
        "Weights & Biases, by epoch",
        &[
            ("train_acc", "train/accuracy"),
            ("train_loss", "loss/total"),
            ("val_acc", "val/accuracy"),
            ("val_loss", "val/loss"),
            ("max_val_acc", ""),
            ("learning_rate", "optim/learning_rate"),
        ],
    ),
    (
        "MMSegmentation",
        &[
            ("lr", "optim/learning_rate"),
            ("base_lr", "optim/learning_rate/base"),
            ("data_time", "time/load_seconds"),
            ("loss", "loss/total"),
            ("decode.loss_ce", "loss/term/decode_loss_ce"),
            ("decode.acc_seg", "train/accuracy/decode_seg"),
            ("aux.loss_ce", "loss/term/aux_loss_ce"),
            ("aux.acc_seg", "train/accuracy/aux_seg"),
            ("grad_norm", "grad/norm"),
            ("time", ""),
            ("iter", ""),
            ("memory", ""),
            ("step", ""),
            ("aAcc", "val/accuracy"),
            ("mIoU", "val/miou"),
            ("mAcc", "val/balanced_accuracy"),
            ("mDice", "val/dice"),
        ],
    ),
    (
        "MMSegmentation, evaluation marked",
        &[
            ("val/aAcc", "val/accuracy"),
            ("val/mIoU", "val/miou"),
            ("val/mAcc", "val/balanced_accuracy"),
            ("val/mFscore", "val/f1"),
            ("val/mPrecision", "val/precision"),
            ("val/IoU.person", "val/iou/person"),
            ("val/IoU.train", "val/iou/train"),
        ],
    ),
    (
        "Detectron2",
        &[
            ("iteration", ""),
            ("total_loss", "loss/total"),
            ("loss_cls", "loss/term/loss_cls"),
            ("loss_box_reg", "loss/term/loss_box_reg"),
            ("loss_mask", "loss/term/loss_mask"),
            ("loss_rpn_cls", "loss/term/loss_rpn_cls"),
            ("loss_rpn_loc", "loss/term/loss_rpn_loc"),
            ("lr", "optim/learning_rate"),
            ("time", ""),
            ("data_time", "time/load_seconds"),
            ("rank_data_time", ""),
            ("eta_seconds", ""),
            ("max_mem", ""),
            ("bbox/AP", "val/average_precision/bbox"),
            ("bbox/AP50", "val/metric/bbox_ap50"),
            ("bbox/AP75", "val/metric/bbox_ap75"),
            ("bbox/APs", "val/metric/bbox_aps"),
            ("bbox/APm", "val/metric/bbox_apm"),
            ("bbox/APl", "val/metric/bbox_apl"),
            ("segm/AP", "val/average_precision/segm"),
            ("segm/AP50", "val/metric/segm_ap50"),
            ("segm/AP75", "val/metric/segm_ap75"),
            ("segm/APs", "val/metric/segm_aps"),
            ("segm/APm", "val/metric/segm_apm"),
            ("segm/APl", "val/metric/segm_apl"),
            ("fast_rcnn/cls_accuracy", "train/accuracy/fast_rcnn_cls"),
            ("fast_rcnn/fg_cls_accuracy", "train/accuracy/fast_rcnn_fg_cls"),
            ("fast_rcnn/false_negative", ""),
            ("mask_rcnn/accuracy", "train/accuracy/mask_rcnn"),
            ("mask_rcnn/false_positive", ""),
            ("mask_rcnn/false_negative", ""),
            ("roi_head/num_fg_samples", ""),
            ("roi_head/num_bg_samples", ""),
            ("rpn/num_pos_anchors", ""),
            ("rpn/num_neg_anchors", ""),
        ],
    ),
    (
        "Detectron2, evaluation marked",
        &[("val/bbox/AP", "val/average_precision/bbox"), ("sem_seg/mIoU", "val/miou/sem_seg")],
    ),
    (
        "Ultralytics",
        &[
            ("epoch", ""),
            ("train/box_loss", "loss/term/box_loss"),
            ("train/seg_loss", "loss/term/seg_loss"),
            ("train/cls_loss", "loss/term/cls_loss"),
            ("train/dfl_loss", "loss/term/dfl_loss"),
            ("metrics/precision(B)", "val/precision/b"),
            ("metrics/recall(B)", "val/recall/b"),
            ("metrics/mAP50(B)", "val/metric/map50_b"),
            ("metrics/mAP50-95(B)", "val/average_precision/b"),
            ("metrics/precision(M)", "val/precision/m"),
            ("metrics/recall(M)", "val/recall/m"),
            ("metrics/mAP50(M)", "val/metric/map50_m"),
            ("metrics/mAP50-95(M)", "val/average_precision/m"),
            ("val/box_loss", "val/metric/box_loss"),
            ("val/seg_loss", "val/metric/seg_loss"),
            ("val/cls_loss", "val/metric/cls_loss"),
            ("val/dfl_loss", "val/metric/dfl_loss"),
            ("lr/pg0", "optim/learning_rate/pg0"),
            ("lr/pg1", "optim/learning_rate/pg1"),
            ("lr/pg2", "optim/learning_rate/pg2"),
        ],
    ),
    (
        "nnU-Net",
        &[
            ("train_loss", "loss/total"),
            ("val_loss", "val/loss"),
            ("Pseudo dice", "val/dice"),
            ("val/dice.0", "val/dice/0"),
            ("val/dice.1", "val/dice/1"),
            ("EMA pseudo Dice", ""),
            ("ema_fg_dice", ""),
            ("Current learning rate", "optim/learning_rate"),
            ("Epoch time", ""),
        ],
    ),
    (
        "nnU-Net, a logger's lists",
        &[
            ("train_losses", "loss/total"),
            ("val_losses", "val/loss"),
            ("lrs", "optim/learning_rate"),
            ("mean_fg_dice", "val/dice"),
            ("epoch_start_timestamps", ""),
            ("epoch_end_timestamps", ""),
        ],
    ),
    (
        "nnU-Net, first version",
        &[("train loss", "loss/total"), ("validation loss", "val/loss"), ("lr", "optim/learning_rate")],
    ),
    (
        "AlgoPerf",
        &[
            ("global_step", ""),
            ("loss", "loss/total"),
            ("grad_norm", "grad/norm"),
            ("lr", "optim/learning_rate"),
            ("train/loss", "train/loss"),
            ("train/ssim", "train/metric/ssim"),
            ("train/bleu", "train/metric/bleu"),
            ("train/accuracy", "train/accuracy"),
            ("train/mean_average_precision", "train/metric/average_precision"),
            ("validation/loss", "val/loss"),
            ("validation/ssim", "val/metric/ssim"),
            ("validation/bleu", "val/metric/bleu"),
            ("validation/accuracy", "val/accuracy"),
            ("validation/mean_average_precision", "val/average_precision"),
            ("validation/num_examples", ""),
            ("test/loss", "test/loss"),
            ("test/ssim", "test/metric/ssim"),
            ("test/bleu", "test/metric/bleu"),
            ("test/accuracy", "test/metric/accuracy"),
            ("test/mean_average_precision", "test/metric/average_precision"),
            ("test/num_examples", ""),
            ("score", ""),
            ("total_duration", ""),
            ("accumulated_submission_time", ""),
            ("accumulated_eval_time", ""),
            ("accumulated_logging_time", ""),
            ("preemption_count", ""),
        ],
    ),
    (
        "AlgoPerf, speech",
        &[
            ("loss", "loss/total"),
            ("train/ctc_loss", "train/loss"),
            ("train/wer", "train/metric/wer"),
            ("validation/ctc_loss", "val/loss"),
            ("validation/wer", "val/metric/wer"),
            ("test/ctc_loss", "test/loss"),
            ("test/wer", "test/metric/wer"),
        ],
    ),
    (
        "AlgoPerf, evaluations only",
        &[("train/loss", "loss/total"), ("validation/loss", "val/loss"), ("test/loss", "test/loss")],
    ),
    (
        "pix2pix",
        &[
            ("epoch", ""),
            ("iters", ""),
            ("time", ""),
            ("data", ""),
            ("G_GAN", "gan/loss_g"),
            ("G_L1", "loss/term/g_l1"),
            ("D_real", "gan/loss_d/real"),
            ("D_fake", "gan/loss_d/fake"),
        ],
    ),
    (
        "CycleGAN",
        &[
            ("D_A", "gan/loss_d/a"),
            ("G_A", "gan/loss_g/a"),
            ("cycle_A", "loss/term/cycle_a"),
            ("idt_A", "loss/term/idt_a"),
            ("D_B", "gan/loss_d/b"),
            ("G_B", "gan/loss_g/b"),
            ("cycle_B", "loss/term/cycle_b"),
            ("idt_B", "loss/term/idt_b"),
        ],
    ),
    (
        "DCGAN",
        &[
            ("Loss_D", "gan/loss_d"),
            ("Loss_G", "gan/loss_g"),
            ("D(x)", "gan/d_real"),
            ("D(G(z))", "gan/d_fake"),
            ("D(G(z2))", "gan/d_fake/after"),
        ],
    ),
    (
        "GAN, a table",
        &[("Iteration", ""), ("Generator Loss", "gan/loss_g"), ("Discriminator Loss", "gan/loss_d")],
    ),
    ("GAN, errors", &[("errD", "gan/loss_d"), ("errG", "gan/loss_g"), ("errD_real", "gan/loss_d/real")]),
    (
        "GAN, small letters",
        &[
            ("d_loss", "gan/loss_d"),
            ("g_loss", "gan/loss_g"),
            ("d_real_prob", "gan/d_real"),
            ("d_fake_prob", "gan/d_fake"),
            ("d_acc", ""),
        ],
    ),
    (
        "GAN, scores",
        &[
            ("loss_d", "gan/loss_d"),
            ("loss_g", "gan/loss_g"),
            ("real_score", "gan/d_real"),
            ("fake_score", "gan/d_fake"),
        ],
    ),
    ("a term that only looks adversarial", &[("loss_d", "loss/term/loss_d"), ("loss", "loss/total")]),
    ("D without a partner", &[("D_real", ""), ("D_fake", "")]),
    (
        "S4GAN",
        &[
            ("loss_ce", "loss/cross_entropy"),
            ("loss_fm", "loss/feature_matching"),
            ("loss_st", "loss/self_training"),
            ("loss_D", "gan/loss_d"),
            ("loss_S", "loss/term/loss_s"),
        ],
    ),
    (
        "UniMatch",
        &[
            ("Iters", ""),
            ("Total loss", "loss/total"),
            ("Loss x", "loss/supervised"),
            ("Loss s", "loss/term/loss_s"),
            ("Loss w_fp", "loss/term/loss_w_fp"),
            ("Mask ratio", ""),
            ("LR", "optim/learning_rate"),
            ("MeanIoU", "val/miou"),
            ("MeanDice", "val/dice"),
            ("Class [0 Right Ventricle] Dice", "val/dice/class_0_right_ventricle"),
            ("Class [1 person] IoU", "val/iou/class_1_person"),
            ("Class [7 train] IoU", "val/iou/class_7_train"),
            ("val/Class [19 train] IoU", "val/iou/class_19_train"),
            ("Previous best", ""),
        ],
    ),
    (
        "UniMatch, change detection",
        &[
            ("Total loss", "loss/total"),
            ("Loss u", "loss/term/loss_u"),
            ("val/Changed IoU", "val/iou/changed"),
            ("val/Unchanged IoU", "val/iou/unchanged"),
            ("Overall Accuracy", "val/accuracy"),
        ],
    ),
    (
        "mean teacher",
        &[
            ("running_loss", "loss/total"),
            ("sup_loss", "loss/supervised"),
            ("unsup_loss", "loss/consistency"),
            ("weights", "weight/consistency"),
            ("train_accuracy", "train/accuracy"),
            ("train_IOU", "train/iou"),
            ("val_accuracy", "val/accuracy"),
            ("val_IOU", "val/iou"),
        ],
    ),
    (
        "mean teacher, other words",
        &[
            ("consistency_loss", "loss/consistency"),
            ("consistency_weight", "weight/consistency"),
            ("ema_decay", "ema/decay"),
            ("val_dice_student", "val/dice/student"),
            ("val_dice_teacher", "val/dice/teacher"),
            ("val_loss_teacher", "val/loss/teacher"),
        ],
    ),
    (
        "a table of one's own",
        &[
            ("epoch", ""),
            ("train_loss", "loss/total"),
            ("val_dice_class1", "val/dice/class1"),
            ("val_dice_RV", "val/dice/rv"),
            ("val_dice_MYO", "val/dice/myo"),
            ("val_dice_LV", "val/dice/lv"),
            ("val_dice_mean", "val/dice"),
            ("val_dice_std", ""),
        ],
    ),
    (
        "metrics without a split beside losses with one",
        &[
            ("train_loss", "loss/total"),
            ("val_loss", "val/loss"),
            ("dice", "val/dice"),
            ("iou", "val/iou"),
            ("precision", "val/precision"),
            ("lr", "optim/learning_rate"),
        ],
    ),
    (
        "parts of losses",
        &[
            ("loss", "loss/total"),
            ("dice_loss", "loss/dice"),
            ("bce_loss", "loss/bce"),
            ("focal_loss", "loss/focal"),
            ("loss_weight_dice", "weight/loss/dice"),
            ("val_dice_loss", "val/metric/dice_loss"),
            ("val_loss_bce", "val/metric/bce_loss"),
        ],
    ),
    (
        "reinforcement learning",
        &[
            ("train/loss", "loss/total"),
            ("train/value_loss", "loss/term/value"),
            ("train/policy_loss", "loss/term/policy"),
            ("train/entropy_loss", "loss/term/entropy"),
        ],
    ),
    (
        "reinforcement learning, no total",
        &[("losses/value_loss", "loss/term/value"), ("losses/policy_loss", "loss/term/policy")],
    ),
    ("actor and critic", &[("actor_loss", "loss/term/actor"), ("critic_loss", "loss/term/critic")]),
    ("WGAN", &[("critic_loss", "gan/loss_d"), ("generator_loss", "gan/loss_g")]),
    ("the value of a loss", &[("loss_value", "loss/total"), ("val_loss_value", "val/loss")]),
    (
        "classes by name",
        &[("val_iou_train", "val/iou/train"), ("val_iou_car", "val/iou/car"), ("train/val_loss", "val/loss")],
    ),
    (
        "no validation",
        &[
            ("train_loss", "loss/total"),
            ("train_acc", "train/accuracy"),
            ("test_loss", "val/loss"),
            ("test_acc", "val/accuracy"),
        ],
    ),
    (
        "no validation, to TensorBoard",
        &[
            ("train/loss", "loss/total"),
            ("test/loss", "val/loss"),
            ("test/accuracy", "val/accuracy"),
            ("dice", "val/dice"),
        ],
    ),
    (
        "two totals",
        &[("total_loss", "loss/total"), ("loss", "loss/term/loss"), ("Loss/cls", "loss/term/loss_cls")],
    ),
    (
        "the optimizer",
        &[
            ("optimizer/lr", "optim/learning_rate"),
            ("lr_backbone", "optim/learning_rate/backbone"),
            ("gradient_norm", "grad/norm"),
            ("grad_norm/layer4", "grad/norm/layer4"),
            ("grad_norm_clipped", ""),
            ("max_grad_norm", ""),
            ("lr_scale", ""),
            ("initial_lr", ""),
            ("weight_decay", "optim/weight_decay"),
            ("param_norm", "param/norm"),
            ("loss_scale", ""),
            ("grad_scale", ""),
        ],
    ),
    ("gradient norm, our own name", &[("grad/norm", "grad/norm"), ("grad_norm", "")]),
    (
        "fairseq",
        &[("gnorm", "grad/norm"), ("clip", ""), ("ppl", "train/metric/ppl"), ("wps", ""), ("train_wall", "")],
    ),
    (
        "timm",
        &[
            ("train_loss", "loss/total"),
            ("eval_loss", "val/loss"),
            ("eval_top1", "val/accuracy"),
            ("eval_top5", "val/metric/top5"),
            ("lr", "optim/learning_rate"),
        ],
    ),
    (
        "ImageNet example",
        &[("Loss", "loss/total"), ("Acc@1", "train/accuracy"), ("Acc@5", "train/metric/acc_5")],
    ),
    (
        "time",
        &[
            ("step_time", "time/step_seconds"),
            ("data_loading_time", "time/load_seconds"),
            ("val_time", "time/evaluate_seconds"),
            ("samples_per_second", ""),
            ("step_time_ms", ""),
            ("eta", ""),
            ("gpu_mem", ""),
        ],
    ),
    (
        "torchmetrics, detection",
        &[("val/map", "val/average_precision"), ("val/map_50", "val/metric/map_50"), ("map_size", "")],
    ),
    (
        "segmentation surfaces",
        &[
            ("val_hd95", "val/metric/hd95"),
            ("val_assd", "val/metric/assd"),
            ("val_surface_dice", "val/surface_dice"),
            ("val_balanced_accuracy", "val/balanced_accuracy"),
            ("val_ece", "val/calibration_error"),
            ("val_error_rate", "val/error_rate"),
        ],
    ),
    (
        "no quantity",
        &[
            ("num_examples", ""),
            ("count", ""),
            ("best_epoch", ""),
            ("val_threshold", ""),
            ("accuracy_target", ""),
        ],
    ),
    ("one word", &[("trainLoss", "loss/total"), ("valLoss", "val/loss"), ("valacc", "val/accuracy")]),
    (
        "our own names",
        &[
            ("loss/total", "loss/total"),
            ("train/loss", "train/loss"),
            ("val/f1/student", "val/f1/student"),
            ("gan/d_real", "gan/d_real"),
            ("time/step_seconds", "time/step_seconds"),
        ],
    ),
];

#[test]
fn real_names_become_the_right_signals() {
    let mut wrong = Vec::new();
    let mut distinct = HashSet::new();
    for (program, examples) in EXAMPLES {
        let logged: Vec<&str> = examples.iter().map(|(logged, _)| *logged).collect();
        for ((name, expected), found) in examples.iter().zip(map(&logged)) {
            distinct.insert(*name);
            let found = found.unwrap_or_default();
            if found != *expected {
                wrong.push(format!("{program}: `{name}` is `{found}` instead of `{expected}`"));
            }
            assert!(found.is_empty() || names::of(&found).is_some(), "`{found}` is no signal");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(distinct.len() >= 200, "{} names", distinct.len());
}

#[test]
fn the_page_of_names_is_up_to_date() {
    const BEGIN: &str = "<!-- examples: written by crates/logs/tests/names.rs -->\n";
    const END: &str = "<!-- end of examples -->\n";
    let mut table = String::new();
    for (program, examples) in EXAMPLES {
        let mut title = (*program).to_owned();
        if let Some(first) = title.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        table += &format!("\n### {title}\n\n| logged | signal |\n|---|---|\n");
        for (logged, signal) in *examples {
            let signal = if signal.is_empty() { String::new() } else { format!("`{signal}`") };
            table += &format!("| `{logged}` | {signal} |\n");
        }
    }
    table.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/log-names.md");
    let text = fs::read_to_string(&path).expect("docs/log-names.md");
    let (before, rest) = text.split_once(BEGIN).expect("the table's first mark");
    let (_, after) = rest.split_once(END).expect("the table's last mark");
    let expected = format!("{before}{BEGIN}{table}{END}{after}");
    if text != expected {
        assert!(
            std::env::var_os("TRIMTAB_BLESS").is_some(),
            "{} is out of date: run this test with TRIMTAB_BLESS=1",
            path.display(),
        );
        fs::write(&path, expected).expect("write");
    }
}

#[test]
fn every_name_of_ours_stays() {
    let own: Vec<&str> = names::ALL.iter().map(|signal| signal.name).collect();
    let expected: Vec<Option<String>> = own.iter().map(|name| Some((*name).to_owned())).collect();
    assert_eq!(map(&own), expected);
}

/// Names made of the words that matter, so that they hit the rules.
fn name() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => prop::sample::select(vec![
            "train", "val", "test", "eval", "loss", "Loss", "acc", "accuracy", "mIoU", "dice", "D", "d", "G", "g", "real", "fake",
            "x", "u", "step", "epoch", "total", "lr", "grad", "norm", "weight", "weights", "time", "mean", "ema", "ce", "class1",
            "AP", "mAP50", "95", "score", "train_runtime", "G_GAN", "num", "best", "consistency", "z", "2",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,6}",
    ];
    prop_oneof![
        6 => (prop::collection::vec(word, 1..5), prop::sample::select(vec!["/", "_", ".", "-", " ", "("]))
            .prop_map(|(words, separator)| words.join(separator)),
        1 => prop::sample::select(names::ALL.iter().map(|signal| signal.name.to_owned()).collect::<Vec<_>>()),
        1 => any::<String>(),
    ]
}

proptest! {
    #[test]
    fn any_names_get_distinct_known_signals_and_keep_them(logged in prop::collection::vec(name(), 0..12)) {
        let logged: Vec<&str> = logged.iter().map(String::as_str).collect();
        let mapped = map(&logged);
        prop_assert_eq!(mapped.len(), logged.len());
        prop_assert_eq!(&map(&logged), &mapped);
        let signals: Vec<&str> = mapped.iter().flatten().map(String::as_str).collect();
        prop_assert_eq!(signals.iter().collect::<HashSet<_>>().len(), signals.len());
        for signal in &signals {
            prop_assert!(names::of(signal).is_some(), "{} is no signal", signal);
        }
        // What has become a signal stays that signal.
        let again: Vec<Option<String>> = signals.iter().map(|signal| Some((*signal).to_owned())).collect();
        let has_total = signals.contains(&"loss/total");
        for (signal, again_mapped) in again.iter().zip(map(&signals)) {
            // Alone, a `train/loss` is taken for the loss that is minimised.
            let trained = signal.as_deref().is_some_and(|signal| signal.starts_with("train/loss"));
            prop_assert!(*signal == again_mapped || (trained && !has_total), "{:?} {:?}", signal, again_mapped);
        }
    }
}
