//! Items a–h (operators), d, U, e, E (U-Nets), X (EdgeNeXt-like) and R (ResNet-like): those of `benches/kernels_torch.py`.

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde_json::{Value, json};
use trimtab_kernels::tensor::{conv2d, conv3d};
use trimtab_nn::losses::bce_with_logits;
use trimtab_nn::models::unet2d::UNet2dConfig;
use trimtab_nn::optim::{AdamW, AdamWConfig};
use trimtab_nn::params;

use super::Times;
use super::nets::{DilatedResNet, EdgeNext, UNet3d};
use super::torch::Torch;

const ITEMS: &str = "c,a,b,f,g,h,d,U,e,E,X,R";

/// What to time.
#[derive(clap::Args)]
pub struct Args {
    /// Items, separated by commas.
    ///
    /// Forward, and forward + backward, of a: 3x3 convolution, 64 channels, [4, 64, 128, 128]; b: 3x3x3, 32 channels,
    /// [1, 32, 48, 48, 48]; f: depthwise 7x7, [4, 96, 64, 64]; g: 1x1, 256 channels, [4, 256, 64, 64]; h: 3x3 of dilation 4,
    /// 128 channels, [2, 128, 64, 64]. c: product of two 1024 x 1024 matrices. Whole training steps of d: 2-D U-Net, base 16,
    /// [4, 1, 128, 128]; U: the same, base 64, [1, 1, 256, 256]; e: 3-D U-Net, base 8, [1, 1, 48, 48, 48]; E: the same,
    /// batch 2; X: three EdgeNeXt-like blocks, [8, 96, 56, 56]; R: ResNet-like stem and four bottlenecks, strided and dilated,
    /// [4, 3, 224, 224].
    #[arg(long, default_value = ITEMS, value_delimiter = ',')]
    items: Vec<String>,
    /// A file to source that sets PY to a Python with PyTorch; without it only our side is timed.
    #[arg(long, value_name = "ENV_FILE")]
    torch: Option<PathBuf>,
    /// Threads of either side.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Also writes the figures here.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Times our side of the items in this process and prints JSON: what the task does in a process for each item.
    #[arg(long, hide = true)]
    ours: bool,
}

/// Our time of one thing.
struct Ours {
    name: String,
    times: Times,
    /// Floating-point operations of the convolutions (or the product).
    gflop: f64,
}

/// Times and prints.
pub fn run(args: &Args) -> crate::Outcome {
    if args.ours {
        return ours(args);
    }
    let torch = args.torch.clone().map(|environment| Torch { environment, threads: args.threads });
    let mut rows: Vec<Value> = Vec::new();
    let mut memory = Vec::new();
    let mut rate = 0f64;
    for item in &args.items {
        // Each side and layout in a process of its own, one after the other in the same sitting.
        let out = std::process::Command::new(std::env::current_exe()?)
            .args(["bench", "kernels", "--ours", "--items", item, "--threads", &args.threads.to_string()])
            .output()?;
        if !out.status.success() {
            return Err(format!("item {item}: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
        let lines: Vec<Value> =
            String::from_utf8(out.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let theirs = |flags: &[&str]| -> Result<Vec<Value>, Box<dyn std::error::Error>> {
            let Some(torch) = &torch else { return Ok(Vec::new()) };
            let arguments: Vec<String> =
                std::iter::once(item.as_str()).chain(flags.iter().copied()).map(str::to_owned).collect();
            torch.run(&arguments)
        };
        let (contiguous, channels_last) = (theirs(&[])?, theirs(&["--cl"])?);
        let of = |lines: &[Value], name: &str, key: &str| {
            lines.iter().find(|line| line["item"] == name).and_then(|line| line[key].as_f64())
        };
        for line in lines.iter().filter(|line| line["item"] != "peak_rss") {
            let name = line["item"].as_str().unwrap_or_default();
            let (median, gflop) = (line["median_ms"].as_f64().unwrap_or(f64::NAN), line["gflop"].as_f64());
            let [default, last] = [&contiguous, &channels_last].map(|lines| of(lines, name, "median_ms"));
            let speed = gflop.map(|gflop| gflop / median * 1e3);
            if name == "c" {
                let fastest = [Some(median), default, last].into_iter().flatten().fold(f64::MAX, f64::min);
                rate = speed.unwrap_or(0.0) * median / fastest;
            }
            rows.push(json!({
                "item": name,
                "ours_ms": median, "ours_min_ms": line["min_ms"], "ours_max_ms": line["max_ms"], "n": line["n"],
                "torch_ms": default, "torch_channels_last_ms": last,
                "ratio": default.map(|t| median / t),
                "ratio_channels_last": last.map(|t| median / t),
                "gflop_per_s": speed,
                "share_of_matmul": speed.filter(|_| rate > 0.0).map(|speed| speed / rate),
            }));
            print_row(rows.len() == 1, &rows[rows.len() - 1]);
        }
        memory.push(json!({
            "item": item,
            "ours_mb": of(&lines, "peak_rss", "mb"),
            "torch_mb": of(&contiguous, "peak_rss", "mb"),
            "torch_channels_last_mb": of(&channels_last, "peak_rss", "mb"),
            "torch_imported_mb": of(&contiguous, "peak_rss", "imported_mb"),
        }));
    }
    println!("\nPeak of resident memory, MB:\n");
    println!("| item | Trimtab | PyTorch | channels_last | PyTorch once imported |\n|---|---|---|---|---|");
    for row in &memory {
        let cells = ["ours_mb", "torch_mb", "torch_channels_last_mb", "torch_imported_mb"]
            .map(|key| row[key].as_f64().map_or("-".to_owned(), |mb| format!("{mb:.0}")));
        println!("| {} | {} |", row["item"].as_str().unwrap_or_default(), cells.join(" | "));
    }
    if let Some(path) = &args.json {
        let all = json!({ "threads": args.threads, "items": rows, "memory": memory });
        std::fs::write(path, serde_json::to_string_pretty(&all)? + "\n")?;
    }
    Ok(())
}

/// Our side: one JSON line for each thing timed, and the peak of memory.
fn ours(args: &Args) -> crate::Outcome {
    // As `trimtab` does: this thread is one of them.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads);
    if args.threads > 1 { pool.use_current_thread() } else { pool }.build_global()?;
    for item in &args.items {
        for o in time(item)? {
            let t = o.times;
            println!(
                "{}",
                json!({
                    "item": o.name, "median_ms": t.median, "min_ms": t.min, "max_ms": t.max, "n": t.count,
                    "gflop": o.gflop,
                })
            );
        }
    }
    println!("{}", json!({ "item": "peak_rss", "mb": peak_mb()? }));
    Ok(())
}

fn print_row(first: bool, row: &Value) {
    if first {
        println!(
            "| item | Trimtab, ms | PyTorch, ms | channels_last, ms | ratio | ratio to channels_last | GFLOP/s | of matmul |"
        );
        println!("|---|---|---|---|---|---|---|---|");
    }
    let show = |name: &str, digits: usize| {
        row[name].as_f64().map_or("-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let share = row["share_of_matmul"].as_f64().map_or("-".to_owned(), |s| format!("{:.0} %", s * 100.0));
    println!(
        "| {} | {} | {} | {} | {} | {} | {} | {share} |",
        row["item"].as_str().unwrap_or_default(),
        show("ours_ms", 2),
        show("torch_ms", 2),
        show("torch_channels_last_ms", 2),
        show("ratio", 2),
        show("ratio_channels_last", 2),
        show("gflop_per_s", 0),
    );
}

/// Highest resident memory of this process so far, in MB of 2^20 bytes.
fn peak_mb() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kb = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok(kb.ok_or("no VmHWM in /proc/self/status")?.trim().parse::<f64>()? / 1024.0)
}

fn time(item: &str) -> Result<Vec<Ours>, Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let one = |times, gflop| vec![Ours { name: item.to_owned(), times, gflop }];
    Ok(match item {
        "a" => convolution2d(item, [4, 64, 128, 128], 64, 3, 1, 1),
        "f" => convolution2d(item, [4, 96, 64, 64], 96, 7, 1, 96),
        "g" => convolution2d(item, [4, 256, 64, 64], 256, 1, 1, 1),
        "h" => convolution2d(item, [2, 128, 64, 64], 128, 3, 4, 1),
        "b" => convolution3d(item),
        "c" => {
            let [left, right] = [0, 1].map(|_| normal::<2>([1024, 1024], &device.clone().inner()));
            let times = Times::measure(3, 9, || {
                left.clone().matmul(right.clone());
            });
            one(times, 2.0 * 1.024f64.powi(3))
        }
        "d" | "U" => {
            let (base, batch, size) = if item == "d" { (16, 4, 128) } else { (64, 1, 256) };
            let (warm, steps) = if item == "d" { (3, 9) } else { (2, 3) };
            one(unet2d(base, batch, size, warm, steps), unet_gflop(2, base, 4, batch, size))
        }
        "e" | "E" => {
            let batch = if item == "e" { 1 } else { 2 };
            let net = UNet3d::init(8, 3, &device, rng);
            let x = normal::<5>([batch, 1, 48, 48, 48], &device);
            let target = x.clone().greater_elem(0.0).float();
            let times = training(3, 9, net, |net| {
                bce_with_logits(net.forward(x.clone()), target.clone(), target.ones_like(), 1.0)
            });
            one(times, unet_gflop(3, 8, 3, batch, 48))
        }
        "X" => {
            let net = EdgeNext::init(96, &[3, 7, 9], &device, rng);
            let x = normal::<4>([8, 96, 56, 56], &device);
            let g = normal::<4>(x.dims(), &device);
            let times = training(3, 9, net, |net| (net.forward(x.clone()) * g.clone()).mean());
            let macs: usize = [3, 7, 9].iter().map(|k| 96 * k * k + 2 * 96 * 384).sum();
            one(times, 6e-9 * (8 * 56 * 56 * macs) as f64)
        }
        "R" => {
            let net = DilatedResNet::init(&device, rng);
            let x = normal::<4>([4, 3, 224, 224], &device);
            let g = normal::<4>([4, 512, 28, 28], &device);
            let times = training(3, 9, net, |net| (net.forward_train(x.clone()) * g.clone()).mean());
            let stem = 112 * 112 * 64 * 3 * 49u64;
            let first = 56 * 56 * (64 * 64 + 64 * 64 * 9 + 64 * 256 + 64 * 256);
            let second = 56 * 56 * 256 * 128 + 28 * 28 * (128 * 128 * 9 + 128 * 512 + 256 * 512);
            let others = 2 * 28 * 28 * (512 * 128 + 128 * 128 * 9 + 128 * 512);
            one(times, 6e-9 * (4 * (stem + first + second + others)) as f64)
        }
        _ => return Err(format!("no such item: {item}; there are {ITEMS}").into()),
    })
}

fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn convolution2d(
    item: &str,
    shape: [usize; 4],
    output: usize,
    kernel: usize,
    dilation: usize,
    groups: usize,
) -> Vec<Ours> {
    let padding = kernel / 2 * dilation;
    let options = ConvOptions::new([1; 2], [padding; 2], [dilation; 2], groups);
    let weight = [output, shape[1] / groups, kernel, kernel];
    convolution(item, shape, weight, |x, w, b| conv2d(x, w, Some(b), options.clone()))
}

fn convolution3d(item: &str) -> Vec<Ours> {
    let options = ConvOptions::new([1; 3], [1; 3], [1; 3], 1);
    convolution(item, [1, 32, 48, 48, 48], [32, 32, 3, 3, 3], |x, w, b| {
        conv3d(x, w, Some(b), options.clone())
    })
}

fn convolution<const D: usize>(
    item: &str,
    shape: [usize; D],
    weight: [usize; D],
    conv: impl Fn(Tensor<D>, Tensor<D>, Tensor<1>) -> Tensor<D>,
) -> Vec<Ours> {
    let plain = Device::flex();
    let (x, w, b) = (normal(shape, &plain), normal(weight, &plain) * 0.05, normal([weight[0]], &plain));
    let positions: usize = shape[0] * shape[2..].iter().product::<usize>();
    let gflop = 2e-9 * (positions * weight.iter().product::<usize>()) as f64;
    let forward = Times::measure(3, 9, || {
        conv(x.clone(), w.clone(), b.clone());
    });
    let g = Tensor::from_inner(normal(shape, &plain));
    let both = Times::measure(3, 9, || {
        let [x, w] = [&x, &w].map(|t| Tensor::from_inner(t.clone()).require_grad());
        let b = Tensor::from_inner(b.clone()).require_grad();
        let y = conv(x.clone(), w.clone(), b.clone());
        let mut gradients = (y * g.clone()).sum().backward();
        std::hint::black_box((
            x.grad_remove(&mut gradients),
            w.grad_remove(&mut gradients),
            b.grad_remove(&mut gradients),
        ));
    });
    vec![
        Ours { name: format!("{item}_fwd"), times: forward, gflop },
        Ours { name: format!("{item}_fwdbwd"), times: both, gflop: 3.0 * gflop },
    ]
}

/// Whole steps: forward, loss, backward, AdamW.
fn training<M: Module>(
    warm: usize,
    steps: usize,
    net: M,
    mut loss_of: impl FnMut(&mut M) -> Tensor<1>,
) -> Times {
    let mut optimizer = AdamW::new(AdamWConfig::default());
    let mut net = Some(net);
    Times::measure(warm, steps, || {
        let mut current = net.take().expect("put back at the end of each step");
        let loss = loss_of(&mut current);
        let gradients = params::gradients(&current, loss.backward());
        net = Some(optimizer.step(current, gradients, |_| 1e-3, None).0);
        loss.into_scalar::<f32>();
    })
}

/// A training step of the 2-D U-Net.
pub fn unet2d(base: usize, batch: usize, size: usize, warm: usize, steps: usize) -> Times {
    let device = Device::flex().autodiff();
    let config = UNet2dConfig { input: 1, output: 1, base };
    let net = config.init(&device, &mut ChaCha8Rng::seed_from_u64(0));
    let x = normal::<4>([batch, 1, size, size], &device);
    let target = x.clone().greater_elem(0.0).float();
    training(warm, steps, net, |net| {
        bce_with_logits(net.forward_train(x.clone()), target.clone(), target.ones_like(), 1.0)
    })
}

/// Operations of the convolutions in a training step of a U-Net, forward and both gradients, in units of 10^9.
pub fn unet_gflop(dims: u32, base: usize, depth: u32, batch: usize, size: usize) -> f64 {
    let taps = 3usize.pow(dims);
    let mut macs = 0;
    for level in 0..=depth {
        let (width, positions) = (base << level, (size >> level).pow(dims));
        let input = if level == 0 { 1 } else { width / 2 };
        macs += positions * taps * width * (input + width);
        if level < depth {
            // Each output of the transposed convolution has one tap.
            macs += positions * 2 * width * width + positions * taps * width * 3 * width;
        }
    }
    macs += size.pow(dims) * base;
    6e-9 * (batch * macs) as f64
}
