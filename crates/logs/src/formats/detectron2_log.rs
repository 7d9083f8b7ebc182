//! The text log of detectron2 and what is built on it.

use serde_json::Value;
use trimtab_signals::keys;

use super::{Certainty, Format, Layout, Peek, in_the_run_folder};
use crate::builder::RunBuilder;
use crate::error::LogError;
use crate::input::Input;
use crate::key_values::{Item, is_noise, number, position, scan};
use crate::log_line::{Clock, Ending, each_line, time_and_message, without_colours};

/// Deepest table of the configuration.
const DEEPEST: usize = 16;

pub(crate) static FORMAT: Format = Format {
    id: "detectron2-log",
    summary: "detectron2: log.txt",
    recognise,
    read,
    layout: Layout::File,
    rank: 28,
    depth: in_the_run_folder,
};

fn recognise(peek: &Peek<'_>) -> Option<Certainty> {
    let marked = |line: &str| {
        let line = without_colours(line.into());
        let (stamp, rest) = (time_and_message(&line).0, line.get(..80).unwrap_or(&line));
        stamp.is_some()
            && (rest.contains(" d2.") || rest.contains("] detectron2 ") || rest.contains(" detectron2]:"))
    };
    peek.lines().take(200).any(marked).then_some(Certainty::Sure)
}

fn read(inputs: &[Input], builder: &mut RunBuilder) -> Result<(), LogError> {
    builder.fact(&keys::RUN_FRAMEWORK, "detectron2");
    let mut log = Log::default();
    for input in inputs {
        each_line(input, |line, whole| log.line(line, whole, builder))?;
    }
    // The last evaluation, where the log ends before the iteration is printed.
    let step = log.step + log.interval;
    log.evaluated(step, builder);
    let planned = builder.facts().integer(keys::RUN_STEPS.name);
    if planned.is_some_and(|planned| log.any && log.step + 1 >= planned as i64) {
        log.ending.finish();
    }
    let known = log.any || log.ending.is_known();
    log.ending.declare(builder);
    match inputs.first() {
        Some(input) if !known && builder.is_empty() && builder.facts().iter().nth(1).is_none() => {
            Err(LogError::content(input.path(), "no iteration and no configuration in it"))
        }
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Log {
    clock: Clock,
    ending: Ending,
    any: bool,
    step: i64,
    /// Iterations between the last two records.
    interval: i64,
    devices: Option<u64>,
    /// Keys of the configuration above the present line, with their indentation; none outside of it.
    config: Option<Vec<(usize, String)>>,
    /// The data set that was evaluated first.
    dataset: Option<String>,
    /// What goes before the names of the metrics: `val/bbox/`.
    prefix: String,
    task: String,
    metrics: Vec<String>,
    /// Results whose iteration is not known yet.
    held: Vec<(String, f64)>,
}

impl Log {
    fn line(&mut self, line: &str, whole: bool, builder: &mut RunBuilder) {
        let (stamp, message) = time_and_message(line);
        if stamp.is_none() {
            if self.ending.look(message) {
                return;
            }
            self.configuration(line, builder);
            return;
        }
        self.config = None;
        // `d2.utils.events]:  eta: …`
        let message =
            message.find("]: ").filter(|&at| at < 60).map_or(message, |at| &message[at + 3..]).trim();
        let seconds = stamp.map(|stamp| self.clock.seconds(stamp));
        if self.ending.look(message) || !whole {
            return;
        }
        if let Some(results) = message.strip_prefix("copypaste: ") {
            self.results(results.trim());
        } else if let Some(rest) = message.strip_prefix("Evaluation results for ") {
            // Lines about tasks (`bbox:`) look alike.
            if let Some(name) = rest.strip_suffix(" in csv format:") {
                self.data(name);
            }
        } else if message.starts_with("Running with full config:") {
            self.config = Some(Vec::new());
        } else if let Some((_, size)) = message.split_once("World size: ") {
            self.devices = size.trim().parse().ok();
        } else if message.contains("iter: ") {
            self.record(message, seconds, builder);
        }
    }

    fn record(&mut self, message: &str, seconds: Option<f64>, builder: &mut RunBuilder) {
        let items = scan(message);
        let numbers =
            || items.iter().filter_map(|item| if let Item::Number(n) = item { Some(n) } else { None });
        let Some(step) = numbers().find(|n| n.key == "iter" && (0.0..1e15).contains(&n.value)) else {
            return;
        };
        let step = step.value as i64;
        self.interval = (step - self.step).clamp(0, 1_000_000);
        self.step = step;
        self.any = true;
        // The evaluation comes before the record of its iteration.
        self.evaluated(step, builder);
        for found in numbers() {
            if found.separated && position(found.key).is_none() && !is_noise(found.key) {
                builder.put(found.key, step, found.value);
            }
        }
        if let Some(seconds) = seconds {
            builder.time(step, seconds);
        }
        self.ending.went_on();
    }

    /// `Task: bbox`, then names, then values.
    fn results(&mut self, text: &str) {
        if let Some(task) = text.strip_prefix("Task: ") {
            self.task = task.trim().to_owned();
            self.metrics.clear();
            return;
        }
        let fields: Vec<&str> = text.split(',').map(str::trim).take(256).collect();
        let values: Vec<Option<f64>> = fields.iter().map(|field| number(field)).collect();
        if values.iter().all(Option::is_none) {
            self.metrics = fields.iter().map(|field| (*field).to_owned()).collect();
            return;
        }
        if self.held.len() > 4096 {
            self.held.clear();
        }
        let prefix = if self.prefix.is_empty() { "val" } else { &self.prefix };
        for (metric, value) in self.metrics.iter().zip(values) {
            if let Some(value) = value {
                self.held.push((format!("{prefix}/{}/{metric}", self.task), value));
            }
        }
    }

    /// Of several data sets the first has the plain names.
    fn data(&mut self, name: &str) {
        let first = self.dataset.get_or_insert_with(|| name.to_owned());
        self.prefix = if first == name { "val".to_owned() } else { format!("val/{name}") };
    }

    fn evaluated(&mut self, step: i64, builder: &mut RunBuilder) {
        for (name, value) in self.held.drain(..) {
            builder.put(&name, step, value);
        }
    }

    /// A line of the configuration, which is YAML with a key a line.
    fn configuration(&mut self, line: &str, builder: &mut RunBuilder) {
        let Some(path) = &mut self.config else { return };
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let Some((key, value)) = text.split_once(':') else { return };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if text.starts_with(['#', '-']) || !key.bytes().all(plain) {
            return;
        }
        while path.last().is_some_and(|(above, _)| *above >= indent) {
            path.pop();
        }
        let value = value.trim();
        if value.is_empty() {
            if path.len() < DEEPEST {
                path.push((indent, key.to_owned()));
            }
            return;
        }
        let mut name = String::new();
        for (_, above) in path.iter() {
            name += above;
            name.push('.');
        }
        name += key;
        let devices = self.devices.unwrap_or(1).max(1);
        let real = number(value).filter(|v| v.is_finite());
        let whole = value.parse::<u64>().ok();
        match (name.as_str(), real, whole) {
            ("SOLVER.BASE_LR", Some(rate), _) => builder.fact(&keys::OPTIM_LEARNING_RATE, rate),
            ("SOLVER.WEIGHT_DECAY", Some(decay), _) => builder.fact(&keys::OPTIM_WEIGHT_DECAY, decay),
            ("SOLVER.MOMENTUM", Some(momentum), _) => builder.fact(&keys::OPTIM_MOMENTUM, momentum),
            ("SOLVER.MAX_ITER", _, Some(steps)) => builder.fact(&keys::RUN_STEPS, steps),
            ("SOLVER.WARMUP_ITERS", _, Some(steps)) => builder.fact(&keys::SCHEDULE_WARMUP_STEPS, steps),
            ("SOLVER.LR_SCHEDULER_NAME", ..) => {
                // `WarmupMultiStepLR`
                let name = value.strip_prefix("Warmup").unwrap_or(value);
                builder.fact(&keys::SCHEDULE_NAME, name.strip_suffix("LR").unwrap_or(name).to_lowercase());
            }
            ("SOLVER.IMS_PER_BATCH", _, Some(images)) => {
                // The batch of all devices together.
                builder.fact(&keys::OPTIM_BATCH_SIZE, (images / devices).max(1));
                builder.fact(&keys::OPTIM_DEVICES, devices);
            }
            ("TEST.EVAL_PERIOD", _, Some(steps)) if steps > 0 => {
                builder.fact(&keys::EVALUATE_INTERVAL, steps)
            }
            ("SEED", _, Some(seed)) => builder.fact(&keys::RUN_SEED, seed),
            ("MODEL.WEIGHTS", ..) if !matches!(value, "''" | "\"\"") => {
                builder.fact(&keys::MODEL_PRETRAINED, true);
            }
            ("MODEL.ROI_HEADS.NUM_CLASSES", _, Some(classes)) => builder.fact(&keys::DATA_CLASSES, classes),
            (name, Some(real), _) if name.starts_with("SOLVER.") => {
                builder.declare(name, &whole.map_or_else(|| Value::from(real), Value::from));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trimtab_signals::Run;

    use crate::read_bytes;

    const LOG: &str = "\
[11/16 02:58:04] detectron2 INFO: Rank of current process: 0. World size: 6
[11/16 02:58:06] detectron2 INFO: Running with full config:
DATASETS:
  TRAIN:
  - some_train
SEED: -1
SOLVER:
  BASE_LR: 0.02
  CLIP_GRADIENTS:
    ENABLED: false
  IMS_PER_BATCH: 60
  MAX_ITER: 60
  STEPS:
  - 40
TEST:
  EVAL_PERIOD: 20
[11/16 02:58:32] d2.utils.events INFO:  eta: 3:30:43  iter: 19  total_loss: 156.1  loss_cls: nan  time: 0.6774  data_time: 0.3745  lr: 2.5373e-05  max_mem: 11810M
[11/16 03:06:55] d2.engine.defaults INFO: Evaluation results for bbox: 
| AP |
[11/16 03:06:55] d2.engine.defaults INFO: Evaluation results for some_val in csv format:
[11/16 03:06:55] d2.evaluation.testing INFO: copypaste: Task: bbox
[11/16 03:06:55] d2.evaluation.testing INFO: copypaste: AP,AP50,APs
[11/16 03:06:55] d2.evaluation.testing INFO: copypaste: 0.0103,0.0457,nan
[11/16 03:06:55] d2.utils.events INFO:  eta: 3:30:43  iter: 39  total_loss: 1.5  loss_cls: 1  time: 0.6774  lr: 2.5373e-05  max_mem: 11810M
\u{1b}[32m[11/16 03:08:55 d2.evaluation.testing]: \u{1b}[0mcopypaste: Task: bbox
\u{1b}[32m[11/16 03:08:55 d2.evaluation.testing]: \u{1b}[0mcopypaste: AP,AP50,APs
\u{1b}[32m[11/16 03:08:55 d2.evaluation.testing]: \u{1b}[0mcopypaste: 1.5,2.5,3.5
";

    fn read(text: &str) -> Run {
        read_bytes("detectron2-log", "log.txt", text.as_bytes()).expect("readable")
    }

    fn logged<'a>(run: &'a Run, name: &str) -> &'a trimtab_signals::Column {
        run.logged(name).unwrap_or_else(|| panic!("no column {name}"))
    }

    #[test]
    fn an_evaluation_belongs_to_the_iteration_printed_after_it() {
        let run = read(LOG);
        assert_eq!(logged(&run, "total_loss").steps(), [19, 39]);
        assert!(logged(&run, "loss_cls").values()[0].is_nan());
        let ap = logged(&run, "val/bbox/AP");
        assert_eq!((ap.steps(), ap.values()), (&[39, 59][..], &[0.0103, 1.5][..]));
        assert!(logged(&run, "val/bbox/APs").values()[0].is_nan());
        assert_eq!(run.trace.names().count(), 6);
        for (key, value) in [
            ("optim.learning_rate", 0.02),
            ("optim.batch_size", 10.0),
            ("optim.devices", 6.0),
            ("run.steps", 60.0),
            ("evaluate.interval", 20.0),
        ] {
            assert_eq!(run.facts.number(key), Some(value), "{key}");
        }
        assert_eq!(run.facts.get("run.seed"), None);
        assert_eq!(run.facts.get("run.finished"), None);
    }

    #[test]
    fn a_second_data_set_has_names_of_its_own() {
        let results = |set: &str, value: &str| {
            format!(
                "[11/16 03:06:55 d2.x]: Evaluation results for {set} in csv format:\n[11/16 03:06:55 d2.x]: copypaste: Task: sem_seg\n\
                 [11/16 03:06:55 d2.x]: copypaste: mIoU\n[11/16 03:06:55 d2.x]: copypaste: {value}\n"
            )
        };
        let run = read(
            &(results("a", "1")
                + &results("b", "2")
                + "[11/16 03:06:55 d2.utils.events]:  iter: 9  total_loss: 1\n"),
        );
        assert_eq!(logged(&run, "val/sem_seg/mIoU").values(), [1.0]);
        assert_eq!(logged(&run, "val/b/sem_seg/mIoU").values(), [2.0]);
    }

    #[test]
    fn a_file_without_iterations_is_an_error() {
        assert!(read_bytes("detectron2-log", "log.txt", b"nothing").is_err());
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at in 0..LOG.len(), bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
            let mut log = LOG.as_bytes().to_vec();
            log.splice(at..(at + bytes.len()).min(LOG.len()), bytes);
            let _ = read_bytes("detectron2-log", "log.txt", &log);
            let _ = read_bytes("detectron2-log", "log.txt", &log[..at]);
        }
    }
}
