//! The loader: order, bounds, errors and shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use trimtab_data::loader::Loader;
use trimtab_data::{DataError, Result};

/// Takes a different time for each item, so that threads finish out of order.
fn uneven(i: u64) -> Result<u64> {
    std::thread::sleep(Duration::from_micros((i * 7919) % 900));
    Ok(i * i)
}

#[test]
fn any_number_of_threads_gives_the_same_items_in_order() {
    let expected: Vec<u64> = (5..60).map(|i| i * i).collect();
    for threads in 0..=8 {
        for ahead in [0, 1, 3, 16] {
            let made: Result<Vec<u64>> = Loader::new(5, 60, threads, ahead, uneven).collect();
            assert_eq!(made.unwrap(), expected, "{threads} threads, {ahead} ahead");
        }
    }
}

#[test]
fn an_empty_or_reversed_range_gives_nothing() {
    for (first, end) in [(3, 3), (4, 3)] {
        for threads in [0, 2] {
            assert!(Loader::new(first, end, threads, 4, uneven).next().is_none());
        }
    }
}

#[test]
fn never_more_than_ahead_items_are_made_and_not_taken() {
    for (threads, ahead) in [(1, 1), (4, 2), (2, 5), (8, 8)] {
        let begun = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&begun);
        let mut loader = Loader::new(0, 200, threads, ahead, move |i| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(i)
        });
        for taken in 0..40 {
            std::thread::sleep(Duration::from_millis(1));
            assert!(begun.load(Ordering::SeqCst) <= taken + ahead as u64, "{threads} threads, {ahead} ahead");
            assert_eq!(loader.next().unwrap().unwrap(), taken);
        }
    }
}

#[test]
fn threads_work_ahead_of_the_consumer() {
    let begun = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&begun);
    let _loader = Loader::new(0, 100, 2, 6, move |i| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(i)
    });
    let start = Instant::now();
    while begun.load(Ordering::SeqCst) < 6 {
        assert!(start.elapsed() < Duration::from_secs(10), "nothing is made ahead");
        std::thread::yield_now();
    }
}

#[test]
fn without_threads_an_item_is_made_when_asked_for_in_the_consumers_thread() {
    let here = std::thread::current().id();
    let mut loader = Loader::new(0, 3, 0, 8, move |i| Ok((i, std::thread::current().id() == here)));
    assert_eq!(loader.position(), 0);
    assert_eq!(loader.next().unwrap().unwrap(), (0, true));
    assert_eq!(loader.position(), 1);
}

#[test]
fn the_first_error_comes_in_its_place_and_ends_the_iteration() {
    for threads in [0, 1, 4] {
        let made: Vec<Result<u64>> = Loader::new(0, 1000, threads, 8, |i| {
            uneven(i)?;
            if i == 11 || i == 13 { Err(DataError::content("m.png", format!("broken {i}"))) } else { Ok(i) }
        })
        .collect();
        assert_eq!(made.len(), 12, "{threads} threads");
        assert!(made[..11].iter().enumerate().all(|(i, item)| *item.as_ref().unwrap() == i as u64));
        assert_eq!(made[11].as_ref().unwrap_err().to_string(), "m.png: broken 11");
    }
}

#[test]
fn a_panic_becomes_an_error_in_its_place() {
    for threads in [0, 3] {
        let made: Vec<Result<u64>> =
            Loader::new(0, 50, threads, 4, |i| if i == 7 { panic!("bad tile {i}") } else { Ok(i) }).collect();
        assert_eq!(made.len(), 8);
        let message = made[7].as_ref().unwrap_err().to_string();
        assert!(message.contains("item 7") && message.contains("bad tile 7"), "{message}");
    }
}

#[test]
fn dropping_the_loader_early_stops_and_joins_its_threads() {
    let alive = Arc::new(());
    let begun = Arc::new(AtomicU64::new(0));
    let (held, counter) = (Arc::clone(&alive), Arc::clone(&begun));
    let mut loader = Loader::new(0, u64::MAX, 4, 8, move |i| {
        let _held = &held;
        counter.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        Ok(i)
    });
    assert_eq!(loader.next().unwrap().unwrap(), 0);
    let start = Instant::now();
    drop(loader);
    assert!(start.elapsed() < Duration::from_secs(5));
    // The closure is gone, so no thread is left that could call it.
    assert_eq!(Arc::strong_count(&alive), 1);
    assert!(begun.load(Ordering::SeqCst) <= 9);
}

#[test]
fn waiting_is_counted() {
    let slow = |i| {
        std::thread::sleep(Duration::from_millis(20));
        Ok(i)
    };
    for threads in [0, 1] {
        let mut loader = Loader::new(0, 3, threads, 1, slow);
        assert_eq!(loader.wait_seconds(), 0.0);
        while loader.next().is_some() {}
        let waited = loader.wait_seconds();
        assert!((0.04..10.0).contains(&waited), "{threads} threads waited {waited}");
    }
}
