//! Once warm, a kernel asks for no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use trimtab_kernels::conv::{self, Conv};
use trimtab_kernels::norm::{self, Activation, Shape};
use trimtab_kernels::optimizer::{self, AdamW, AdamWPart};
use trimtab_kernels::pointwise;
use trimtab_kernels::pool::{self, Pool};
use trimtab_kernels::resize::{self, Mode, Resize};

struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of the third call of `kernel`, on one thread, so that all of them are counted here.
fn third_call(mut kernel: impl FnMut() + Send) -> usize {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| {
        kernel();
        kernel();
        let before = CALLS.get();
        kernel();
        CALLS.get() - before
    })
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 97) as f32 * 0.01 - 0.3).collect()
}

#[test]
fn counting_sees_an_allocation() {
    assert!(third_call(|| drop(std::hint::black_box(Vec::<f32>::with_capacity(100)))) > 0);
}

#[test]
fn convolutions_allocate_nothing() {
    let plain = Conv {
        batch: 2,
        input: 6,
        output: 10,
        groups: 1,
        size: [1, 40, 50],
        kernel: [1, 3, 3],
        stride: [1; 3],
        padding: [0, 1, 1],
        dilation: [1; 3],
    };
    let strided = Conv { stride: [1, 2, 2], groups: 2, ..plain };
    let depthwise = Conv { groups: 6, output: 6, kernel: [1, 7, 7], padding: [0, 3, 3], ..plain };
    let solid = Conv { size: [9; 3], kernel: [3; 3], padding: [1; 3], ..plain };
    for c in [plain, strided, depthwise, solid] {
        let (x, w, dy) = (ramp(c.input_len()), ramp(c.weight_len()), ramp(c.output_len()));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let bias = ramp(c.output);
        let mut dbias = bias.clone();
        let positions = c.out_size().iter().product();
        let calls = third_call(|| {
            conv::forward(&c, &x, &w, Some(&bias), &mut y);
            conv::backward_input(&c, &dy, &w, &mut dx);
            conv::backward_weight(&c, &x, &dy, &mut dw);
            conv::backward_bias(c.batch, c.output, positions, &dy, &mut dbias);
        });
        assert_eq!(calls, 0, "{c:?}");
    }
}

#[test]
fn norms_pools_resizing_and_updates_allocate_nothing() {
    let shape = Shape { batch: 2, channels: 5, inner: 600 };
    let n = 2 * 5 * 600;
    let (x, dy, w, b) = (ramp(n), ramp(n), ramp(5), ramp(5));
    let (mut y, mut dx) = (ramp(n), ramp(n));
    let (mut m, mut v, mut dw, mut db) = (ramp(2 * 600), ramp(2 * 600), ramp(5), ramp(5));
    let calls = third_call(|| {
        let act = Activation::Relu;
        norm::batch_train(shape, 1e-5, act, &x, &w, &b, &mut y, &mut m[..5], &mut v[..5]);
        let dx = &mut dx[..];
        norm::batch_train_backward(
            shape,
            1e-5,
            act,
            &x,
            &w,
            &b,
            &m[..5],
            &v[..5],
            &dy,
            Some(dx),
            &mut dw,
            &mut db,
        );
        norm::group(shape, 5, 1e-5, act, &x, Some(&w), Some(&b), &mut y, &mut m[..10], &mut v[..10]);
        norm::group_backward(
            shape,
            5,
            act,
            &x,
            Some(&w),
            Some(&b),
            &m[..10],
            &v[..10],
            &dy,
            Some(dx),
            Some(&mut dw),
            Some(&mut db),
        );
        norm::layer_channels(shape, 1e-6, act, &x, &w, &b, &mut y, &mut m, &mut v);
        norm::layer_channels_backward(shape, act, &x, &w, &b, &m, &v, &dy, Some(dx), &mut dw, &mut db);
        pointwise::gelu(&x, &mut y);
        pointwise::scaled_residual_backward(2, 600, &x, &w, &dy, dx, &mut dw);
    });
    assert_eq!(calls, 0, "norms");

    let p = Pool::new(10, [1, 20, 30], [1, 2, 2]);
    let (mut small, mut index) = (ramp(n / 4), vec![0u32; n / 4]);
    let r = Resize {
        planes: 10,
        size: [1, 10, 15],
        output: [1, 20, 30],
        mode: Mode::Linear { align_corners: false },
    };
    let calls = third_call(|| {
        pool::max(&p, &x, &mut small, &mut index);
        pool::max_backward(&p, &index, &small, &mut dx);
        pool::average(&p, true, &x, &mut small);
        pool::average_backward(&p, true, &small, &mut dx);
        resize::forward(&r, &small, &mut y);
        resize::backward(&r, &dy, &mut small);
    });
    assert_eq!(calls, 0, "pools and resizing");

    let (mut mean, mut square) = (ramp(n), ramp(n));
    let mut parts = [AdamWPart {
        parameter: &mut y,
        gradient: &dy,
        mean: &mut mean,
        square: &mut square,
        updates: 1,
        rate: 0.1,
    }];
    let calls = third_call(|| {
        optimizer::adamw(&AdamW::default(), &mut parts, None);
        optimizer::sum_of_squares(&[&dy]);
    });
    assert_eq!(calls, 0, "updates");
}
