//! `metrics.json` of Detectron2: one JSON object a line, with an `iteration`.

use trimtab_signals::{keys, names};

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::json_lines::{self, Object, Sink};

/// `metrics.json` of Detectron2.
pub const FORMAT: Format = Format {
    id: "detectron2-json",
    summary: "metrics.json of Detectron2",
    recognise,
    read,
    layout: Layout::File,
    rank: 30,
    depth: in_the_run_folder,
};

/// Beginnings of the names under which evaluators report, by task.
const TASKS: [&str; 7] =
    ["bbox", "segm", "keypoints", "sem_seg", "panoptic_seg", "box_proposals", "densepose"];

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let ours = |record: &Object| {
        record.contains_key("iteration")
            && (["total_loss", "eta_seconds", "data_time"].iter().any(|name| record.contains_key(*name))
                || record.keys().any(|name| is_evaluation(name)))
    };
    json_lines::head_objects(peek).iter().any(ours).then_some(Certainty::Sure)
}

/// Whether a name is an evaluator's: `bbox/AP`, `coco_val/segm/AP50-person`, `sem_seg/mIoU`. A record can hold both these and the
/// losses of training.
fn is_evaluation(name: &str) -> bool {
    let Some((path, last)) = name.rsplit_once('/') else { return false };
    let score = ["AP", "AR", "mIoU", "fwIoU", "IoU", "mACC", "pACC", "ACC", "PQ", "SQ", "RQ", "mBoundaryIoU"]
        .iter()
        .any(|score| last.starts_with(score));
    score && path.split('/').any(|part| TASKS.iter().any(|task| part.starts_with(task)))
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    let mut sink = Sink::new();
    builder.fact(&keys::RUN_FRAMEWORK, "detectron2");
    for input in inputs {
        let mut without_iteration = 0_u64;
        json_lines::each_object(input, builder, |record, builder| {
            match record.get("iteration").and_then(json_lines::whole) {
                Some(iteration) => push(&record, iteration, &mut sink, builder),
                None => without_iteration += 1,
            }
        })?;
        if without_iteration > 0 {
            builder.note(format!("{without_iteration} records without an iteration were passed over"));
        }
        sink.check(input)?;
    }
    Ok(())
}

fn push(record: &Object, iteration: i64, sink: &mut Sink, builder: &mut RunBuilder) {
    for (name, value) in record {
        if ["iteration", "eta_seconds"].contains(&name.as_str()) {
            continue;
        }
        // A record has only what was measured; `null` is what strict writers put for `NaN`.
        let Some(value) = json_lines::number(value) else { continue };
        let name = if is_evaluation(name) { format!("val/{name}") } else { name.clone() };
        if let Some(column) = sink.put(builder, &name, iteration, value) {
            // Seconds an iteration, not since the start.
            match name.as_str() {
                "time" => builder.is_signal(column, names::TIME_STEP_SECONDS.name),
                "data_time" => builder.is_signal(column, names::TIME_LOAD_SECONDS.name),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_lines::tests::{logged, read as read_files, recognised, survives};

    const METRICS: &str = concat!(
        r#"{"data_time": 0.01, "eta_seconds": 99.5, "iteration": 19, "lr": 1e-3, "time": 0.4, "total_loss": 2.5}"#,
        "\r\n\r\n",
        r#"{"data_time": 0.01, "iteration": 39, "lr": 1e-3, "time": 0.5, "total_loss": NaN, "bbox/AP": 42.5}"#,
        "\r\n",
        r#"{"bbox/AP": NaN, "segm/AP50-person": 50.0, "iteration": 40, "validation_loss": 1.5}"#,
        "\r\n",
        r#"{"iteration": 59, "total_"#,
    );

    #[test]
    fn scores_are_of_validation_and_losses_of_training() {
        let run = read_files(&FORMAT, &[("metrics.json", METRICS)]).expect("readable");
        let loss = logged(&run, "total_loss");
        assert_eq!(loss.len(), 2);
        assert!(loss[1].1.is_nan());
        let ap = logged(&run, "val/bbox/AP");
        assert_eq!(ap[0], (39, 42.5));
        assert!(ap[1].0 == 40 && ap[1].1.is_nan());
        assert_eq!(logged(&run, "val/segm/AP50-person"), [(40, 50.0)]);
        assert_eq!(run.trace.last("time/step_seconds"), Some((39, 0.5)));
        assert!(logged(&run, "eta_seconds").is_empty());
        assert!(run.notes.is_empty(), "{:?}", run.notes);
    }

    #[test]
    fn training_ratios_are_no_evaluation() {
        for name in
            ["fast_rcnn/cls_accuracy", "rpn/num_pos_anchors", "mask_rcnn/accuracy", "AP", "total_loss"]
        {
            assert!(!is_evaluation(name), "{name}");
        }
        for name in ["bbox/AP", "bbox_student/AP", "coco_val/segm/APs", "sem_seg/mIoU", "panoptic_seg/PQ"] {
            assert!(is_evaluation(name), "{name}");
        }
    }

    #[test]
    fn other_lines_are_not_taken() {
        assert_eq!(recognised(&FORMAT, "x", METRICS), Some(Certainty::Sure));
        assert_eq!(recognised(&FORMAT, "x", "{\"iteration\":1,\"loss\":2}\n"), None);
        assert_eq!(recognised(&FORMAT, "x", "{\"iter\":1,\"data_time\":2}\n"), None);
        assert!(read_files(&FORMAT, &[("x", "{\"iter\":1,\"data_time\":2}\n")]).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        survives(&FORMAT, "metrics.json", METRICS);
    }
}
